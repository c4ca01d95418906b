// Texts of models and data: they reach the page as text nodes only, and what would act in secret
// is written out. Nothing here or in the other parts makes markup of a string.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u;
const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB " +
  "CAN EM SUB ESC FS GS RS US").split(" ");
const HARMLESS = "\n\t\u200c\u200d";
const MOST_SIGNS = 500;  // marked one by one in a text; more are written out without a mark
const LONG = 2000;  // characters of a text that are shown at first

function isHidden(sign) {
  return HIDDEN.test(sign) && !HARMLESS.includes(sign);
}

function signOf(sign) {
  const code = sign.codePointAt(0);
  const name = CONTROLS[code] ?? (code === 0x7f ? "DEL" : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`);
  return `\u27e8${name}\u27e9`;
}

function visible(text) {
  if (!HIDDEN.test(text)) return text;
  let out = "";
  for (const sign of text) out += isHidden(sign) ? signOf(sign) : sign;
  return out;
}

// An element with text or other elements inside.
function make(name, classes = "", ...inside) {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  for (const part of inside) {
    if (part !== null) made.append(typeof part === "string" ? visible(part) : part);
  }
  return made;
}

// A text on its own: it cannot turn what stands around it.
function isolated(text) {
  return make("bdi", "", text);
}

// A text with its hidden signs marked, so that ⟨ESC⟩ is told apart from one that the model wrote.
function fill(place, text) {
  let plain = "";
  let n = 0;
  for (const sign of text) {
    if (!isHidden(sign)) {
      plain += sign;
    } else if (n < MOST_SIGNS) {
      n += 1;
      const mark = document.createElement("span");
      mark.className = "sign";
      mark.textContent = signOf(sign);
      place.append(plain, mark);
      plain = "";
    } else {
      plain += signOf(sign);
    }
  }
  place.append(plain);
}

// A box with a model's text; a long one begins with its start, and a button shows the rest.
function textBox(text, classes = "") {
  const box = make("div", `text ${classes}`);
  box.dir = "auto";
  if (text === "") {
    box.append(make("span", "hint", "(empty)"));
    return box;
  }
  let end = LONG;
  if (text.length > LONG + 200) {
    if (/[\ud800-\udbff]/.test(text[end - 1])) end -= 1;  // no character is cut in two
    fill(box, text.slice(0, end));
    const more = make("button", "more", `… show all ${text.length.toLocaleString("en")} characters`);
    more.type = "button";
    more.addEventListener("click", () => {
      box.replaceChildren();
      fill(box, text);
      box.tabIndex = -1;
      box.focus({preventScroll: true});
    });
    box.append(more);
  } else {
    fill(box, text);
  }
  return box;
}

function number(value) {
  if (value === null || value === undefined) return "—";
  return String(value).replace("-", "\u2212");
}
