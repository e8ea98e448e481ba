from semtransforms.app.serving import serve

serve(host="0.0.0.0")
