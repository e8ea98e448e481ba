// Files and folders go to the page one by one; the slider over a picture moves; classes that were typed are sent.
(() => {
  const find = (id) => document.getElementById(id);
  const refresh = () => (document.querySelector("#arrived button") || find("arrived")).click();

  async function bring(items) {
    const drop = find("drop"), word = find("sending"), sent = find("sent");
    if (!items.length) return;
    const batch = Date.now().toString(36) + Math.random().toString(36).slice(2);
    sent.hidden = false;
    sent.max = items.length;
    for (const [number, { path, file }] of items.entries()) {
      sent.value = number;
      word.textContent = drop.dataset.sending.replace("{number}", number + 1).replace("{total}", items.length);
      try {
        const query = `?batch=${batch}&path=${encodeURIComponent(path)}`;
        const answer = await fetch(`${drop.dataset.base}/bring${query}`, { method: "POST", body: file });
        if (!answer.ok) throw new Error(await answer.text());
      } catch (error) {
        word.textContent = error instanceof TypeError ? drop.dataset.cutOff : error.message;
        sent.hidden = true;
        refresh();
        return;
      }
    }
    sent.hidden = true;
    word.textContent = drop.dataset.sent;
    refresh();
  }

  async function below(entry, place) {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      return [{ path: place + file.name, file }];
    }
    const reader = entry.createReader(), found = [];
    for (;;) {  // gives a hundred at a time
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return found;
      for (const inner of some) found.push(...(await below(inner, `${place}${entry.name}/`)));
    }
  }

  document.addEventListener("change", (event) => {
    if (event.target.id !== "pick-files" && event.target.id !== "pick-folder") return;
    bring([...event.target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
    event.target.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      const drop = event.target.closest && event.target.closest("#drop");
      if (!drop) return;
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind !== "drop") return;
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
      Promise.all(entries.map((entry) => below(entry, ""))).then((found) => bring(found.flat()));
    });
  }
  document.addEventListener("input", (event) => {
    const compare = event.target.closest && event.target.closest(".compare");
    if (compare) compare.style.setProperty("--at", `${event.target.value}%`);
  });
  document.addEventListener("click", async (event) => {
    if (event.target.id !== "use-labels") return;
    const typed = {};
    for (const field of document.querySelectorAll(".labels input")) typed[field.dataset.file] = field.value;
    await fetch(`${document.querySelector(".labels").dataset.base}/label`, { method: "POST", body: JSON.stringify(typed) });
    refresh();
  });
})();
