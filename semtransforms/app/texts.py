"""Every sentence of the page, in English. Translate this file, and the page speaks another language.

Words in braces are filled in. Sentences about photographs, plans and verdicts come from the package, as the command
line says them.
"""

TITLE = "Protect your photographs"
INTRO = (
    "Bring photographs, look at what protection changes, fit noise that is your own, and take home a copy that you "
    "can publish. Who trains a network on that copy learns less. It is no lock: the verdict says what was still "
    "learned, by the trainers that were tried."
)
LOCAL = "This page runs on your machine. Nothing leaves it."
PUBLIC = (
    "This page runs on a machine that others reach too. Its owner could read what you bring. Do not protect "
    "photographs here that you want to keep from them; install semtransforms and run “semtransforms app” on your own "
    "machine."
)
LEAVING_LOCAL = (
    "When you close the page, the photographs that you brought are deleted after {minutes} minutes, and a fit that "
    "runs stops. The published copies and the private folder stay on this machine: bring the same photographs in this "
    "browser again, and it goes on."
)
LEAVING_PUBLIC = (
    "When you close the page, everything of yours is deleted after {minutes} minutes, the private folder too, and a "
    "fit that runs stops. No visitor sees anything of another."
)

BRING = "1. Bring photographs"
BRING_HELP = (
    "One folder for each class, such as photos/cat and photos/dog: as a folder or as a zip. Single files do too: then "
    "say beside each picture what is on it. At least two classes of two photographs; fewer than 20 a class were not "
    "measured."
)
DROP = "Drop files, folders or a zip here"
PICK_FILES = "Choose files or a zip"
PICK_FOLDER = "Choose a folder"
SENDING = "Taking in {number} of {total}"
SENT = "All taken in."
CUT_OFF = "The page did not answer. Is semtransforms still running? Then try again."
FOUND = "What was found"
NOTHING_YET = "No photographs yet."
LABEL_HELP = "Say what is on each photograph: two classes or more. The same word is the same class."
LABEL = "What is on {name}?"
LABEL_MANY = (
    "{count} photographs have no class, too many to type: the first {most} are here. Folders named like the classes "
    "are quicker."
)
USE_LABELS = "Use these classes"
REMOVE_ALL = "Start over"

LOOK = "2. Look"
LOOK_HELP = (
    "Move the slider over the picture: the original to the left of it, the protected copy to the right, at 100 %: one "
    "pixel of the photograph is one of the page."
)
PHOTOGRAPH = "Photograph"
STRENGTH = "Strength ρ_u, in 255ths of the pixel range"
STRENGTH_HELP = "How far a pixel may change. Only 8 was measured for photographs; less is seen less and protects less."
VISIBILITY = "Visibility"
VISIBILITY_HELP = "1: all of the strength everywhere. 0: in sky and skin only what the eye tolerates; costs protection."
BEFORE_FIT = (
    "Before the fit this shows noise of the same strength and size, made in a moment to be looked at. It is not the "
    "noise that you will publish, which is about as strong."
)
AFTER_FIT = "This is the copy that you publish, and its noise."
ORIGINAL = "Original"
COPY = "Protected"
NOISE = "The noise, times {gain}"
ALT_ORIGINAL = "{name}, original, its middle at 100 %"
ALT_COPY = "{name}, protected, the same part; the original lies over its left side up to the slider"
ALT_NOISE = "The noise of {name}, {gain} times as strong, on grey"
SLIDER = "Where the original ends and the protected copy begins, in % of the width"
NUMBERS = (
    "The pixels of this part differ by up to {largest} of 255 grey levels, {rms:.1f} root mean square (PSNR "
    "{psnr:.1f} dB, SSIM {ssim:.3f}). On {share:.0%} of them it is more than the eye tolerates, by a model of "
    "contrast masking: {words}."
)
WORDS = (  # up to which share
    (0.05, "hard to see, even beside the original"),
    (0.3, "seen on flat ground by who compares with the original"),
    (1.0, "seen in sky, walls and skin, as spots or bands"),
)
TOO_SMALL = "too small to be measured"

PROTECT = "3. Fit and protect"
MINUTES = "Minutes for the fit"
MINUTES_HELP = "20 on two processor cores is what was measured. Less is quicker and protects less."
FORMAT = "Copies as"
FORMATS = (("PNG, exact to the byte", "png"), ("JPEG, a fifth as large, adds changes of its own", "jpeg"))
QUALITY = "Quality of JPEG"
PLAN = "Plan"
PLAN_HELP = "Measures for some seconds how fast this machine is."
START = "Fit and protect"
WARNED = "Warning: {text}"
STOP = "Stop"
GO_ON = "Stopped. Press “Fit and protect” to go on from here: at most half a minute of the fit is done again."
WAITING = "Another visitor's photographs are being protected. Yours are next in line; this page waits."
STARTING = "Starting"
STEPS = {
    "look": "Looking at the photographs",
    "read": "Reading the photographs",
    "fit": "Fitting the noise",
    "protect": "Writing the protected copies",
    "compare": "Comparing what is held out",
    "": "Training networks on the originals and on the copy",
}
PROGRESS = "{step}: {done:,} of {total:,}"
LEFT = "about {left} left in this step"
STORY = "Line by line"
DONE = "Done: your copy is protected. Read the verdict before you publish it."
FAILED = "Not finished: {why}"
DIED = "the work ended without a word (code {code}). Is there enough memory? Press “Fit and protect” to go on."
NOT_PROTECTED = "Not protected: {place}"

KNOW = "4. Know what is still learned"
NOT_YET = "The verdict stands here when the copies are finished."
BARS = "Clean photographs named rightly, in %"
ON_ORIGINALS = "trained on the originals"
ON_COPY = "trained on your copy"
GUESSING = "guessing"
NOT_TRIED = "Not tried here"
NOT_TRIED_TEXT = (
    "Trainers that an owner must know, and that were not tried: {names}. “semtransforms evaluate” tries them."
)
REPORT = "Open the full report"
REPORT_HELP = "It shows originals and noise: keep it to yourself."

TAKE = "5. Take it home"
NOTHING_TO_TAKE = "Your copies stand here when they are finished."
PUBLISH = "To publish"
ZIP_COPY = "Protected copies as zip ({count})"
RECORD = "protection.json"
FILES = "Single files"
WHERE = "On this machine they are in {folder}."
KEEP = "To keep private"
KEEP_TEXT = (
    "The generator, the seed and the report. Who has one of the first two can compute the noise and take it off; the "
    "report shows originals. With it, more photographs of the same classes get the same noise. Never publish it."
)
ZIP_PRIVATE = "Private folder as zip"
PAIRS = (
    "Keep the originals to yourself too. A few hundred of them with their copies teach a network to take the noise "
    "off the rest. So no public page should protect on request with the generator of a real protection: whoever asks "
    "gets pairs. Here each visitor has a generator of their own."
)
DELETE = "Delete everything of mine"
DELETE_HELP = "Photographs, copies, and the private folder with generator and seed. It cannot be undone."
DELETED = "Everything of yours is deleted."

GONE = "This page was left for too long, and what was brought is deleted. Load it again."
CROWDED = (
    "{most} visitors are here, the most that this page takes. Load it again later, or install semtransforms and run "
    "“semtransforms app” on your own machine."
)
FULL = (
    "all visitors together fill the {most} that this page has for them. Come back later, delete what is yours if you "
    "have taken it home, or install semtransforms and run “semtransforms app” on your own machine."
)
FULL_LEFT_OUT = "Left out: {name}, since {full}"
BUSY = "Your photographs are being protected. Stop first."
NAME_REFUSED = "Left out: {name}. Its name leads elsewhere, or is none that a disk takes. Rename it."
NO_IMAGE_NAME = "Left out: {name}. By its name it is no image."
CLASS_REFUSED = "{name!r} is no name for a class. Use letters, no slash, and no dot in front."
ZIP_BROKEN = "Left out: {name}. It is no zip archive, or a damaged one ({why}). Pack it again."
CLASHES = "Left out: {name}. A file and a folder of one name cannot lie together. Rename one of them."
ZIP_DAMAGED = "Left out: {name}. It is damaged in the archive ({why}). Pack it again."
ZIP_LINK = "Left out: {name}. It is a link. Pack the photograph itself."
ZIP_LOCKED = "Left out: {name}. It needs a password. Pack it without."
ZIP_MANY = "Left out: {name}. It has {files} files, more than {most}. Pack fewer into one."
ZIP_LISTING = "Left out: {name}. Its list of files has more than {size}; {most} files need less. Pack fewer into one."
ZIP_LARGE = "Left out: {name}. Unpacked it would have {size}, and {room} are left for you. Bring fewer photographs."
LARGE = "Left out: {name}. With it you would have brought more than {most}. Bring fewer photographs."
DISK_SMALL = "Left out: it needs {size}, and the disk of this page has {free} free. Free space there, or bring fewer."
DISK_FULL = "Left out: {name}. It cannot be written ({why}). Free space on the disk of this page, then bring it again."

YOUR_FOLDER = "(your folder)"

# what the package calls things on the command line, and this page does not
PLAIN = {
    "SOURCE": "what you brought",
    "minutes (--minutes)": "minutes",
    " Give --minutes": " Give",
    ", or lift the limit: semtransforms protect --max-megapixels": "",
}

SHARE_MEANS = (
    "--share: a tunnel of Gradio's makes this page reachable from the whole internet, under an address that whoever "
    "has it can use. Photographs go through servers of Hugging Face."
)
NO_TUNNEL = (
    "--share: there is no tunnel. Gradio downloads a program for it and asks its servers for an address, both over the "
    "internet. So nobody reaches the page by it; end it, and try again where there is one."
)
HOST_MEANS = "--host {host}: whoever reaches this machine over the network can use the page, and there is no password."
LISTENING = "The page: {url} (Ctrl-C ends it)"
