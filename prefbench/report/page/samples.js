// The sample browser: packed samples are opened a pack at a time, and only a page of them is listed.

const PAGE = 50;
const KEPT = 4;  // open packs; the one that was used longest ago goes
const DIFFERS = 1;
const MISSING = 2;

async function unpacked(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function samples() {
  const found = (id) => document.getElementById(id);
  const browser = found("browser");
  if (!browser) return;
  if (!("DecompressionStream" in window)) {
    browser.before(make("p", "reason", "Samples are packed; this browser is too old to open them."));
    return;
  }
  const [task, query, differ, missing] =
    ["sample-task", "sample-text", "sample-differ", "sample-missing"].map(found);
  const [list, place, count, where] =
    ["sample-list", "sample", "sample-count", "page-where"].map(found);
  const [back, on] = ["page-back", "page-on"].map(found);
  const packs = new Map();
  const state = {number: "", index: null, starts: [], rows: [], page: 0, open: -1, turn: 0};

  async function pack(number, which) {
    const id = `chunk-${number}-${which}`;
    const kept = packs.get(id);
    packs.delete(id);
    const rows = kept ?? unpacked(id);
    packs.set(id, rows);
    if (packs.size > KEPT) packs.delete(packs.keys().next().value);
    return rows;
  }

  function packOf(row) {
    let which = 0;
    while (which + 1 < state.starts.length && state.starts[which + 1] <= row) which += 1;
    return which;
  }

  async function openTask() {
    const turn = (state.turn += 1);
    const index = await unpacked(`index-${task.value}`);
    if (turn !== state.turn) return;
    state.number = task.value;
    state.index = index;
    state.starts = [];
    let at = 0;
    for (const n of index.chunks) {
      state.starts.push(at);
      at += n;
    }
    state.open = -1;
    differ.nextElementSibling.textContent = `only where ${index.differ === "the texts differ" ? "texts differ" : `checkpoints disagree (${index.differ})`}`;
    await choose();
  }

  // --- which samples are listed

  function says(row, wanted) {
    const held = (text) => typeof text === "string" && text.toLowerCase().includes(wanted);
    const heard = (one) => held(one.reply) || held(one.reason) || Object.values(one.members ?? {}).some(heard);
    return held(row.prompt) || row.texts.some(held) || held(row.target) ||
      row.answers.some((one) => one && (one.texts.some(held) || held(one.reason) || held(one.prompt))) ||
      row.judged.some((one) => held(one.reason) || one.verdicts.some(heard));
  }

  async function choose() {
    const turn = (state.turn += 1);
    const {index, number, starts} = state;
    const bits = (differ.checked ? DIFFERS : 0) | (missing.checked ? MISSING : 0);
    const flagged = index.items.map((_, i) => i).filter((i) => (index.flags[i] & bits) === bits);
    const wanted = query.value.toLowerCase();
    state.page = 0;
    if (!wanted) {
      state.rows = flagged;
      count.textContent = `${flagged.length.toLocaleString("en")} samples`;
      return showList(turn);
    }
    const rows = [];
    let looked = 0;
    for (let which = 0; which < starts.length; which += 1) {
      const end = starts[which] + index.chunks[which];
      const some = [];
      while (looked < flagged.length && flagged[looked] < end) some.push(flagged[looked++]);
      if (!some.length) continue;
      const open = await unpacked(`chunk-${number}-${which}`);  // a search keeps no pack
      if (turn !== state.turn) return;
      for (const row of some) if (says(open[row - starts[which]], wanted)) rows.push(row);
      count.textContent = `${rows.length} found, ${Math.round((100 * end) / index.items.length)} % searched`;
    }
    state.rows = rows;
    count.textContent = `${rows.length.toLocaleString("en")} samples with “${visible(query.value)}”`;
    return showList(turn);
  }

  function showList(turn) {
    const {index, rows, page} = state;
    list.replaceChildren(...rows.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
      const button = make("button", "sample",
        make("span", "n", String(index.items[row])),
        make("span", "head", isolated(index.heads[row] || "(no prompt)")));
      const flags = index.flags[row];
      if (flags & DIFFERS) button.append(make("span", "flag", make("span", "unseen", "checkpoints disagree"), "≠"));
      if (flags & MISSING) button.append(make("span", "flag", make("span", "unseen", "something is missing"), "∅"));
      button.type = "button";
      button.dataset.row = row;
      button.addEventListener("click", () => open(row));
      return make("li", "", button);
    }));
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    where.textContent = `page ${page + 1} of ${pages}`;
    back.disabled = page === 0;
    on.disabled = page + 1 >= pages;
    mark();
    browser.dataset.ready = String(turn);
    if (state.open < 0) place.replaceChildren(make("p", "hint", rows.length ? "Choose a sample from the list." : "No sample is like that."));
  }

  function mark() {
    for (const button of list.querySelectorAll("button")) {
      button.toggleAttribute("aria-current", Number(button.dataset.row) === state.open);
    }
  }

  // --- one sample

  async function open(row) {
    const {number, starts, index} = state;
    state.open = row;
    mark();
    const which = packOf(row);
    const rows = await pack(number, which);
    if (state.open !== row || state.number !== number) return;
    place.replaceChildren(...sample(rows[row - starts[which]], index));
    if (place.getBoundingClientRect().top > window.innerHeight * 0.8) place.scrollIntoView();
  }

  function sample(row, index) {
    const parts = [make("h3", "", `Item ${row.item}`), make("h4", "", "Prompt")];
    if (index.shared) {
      const summary = make("summary", "", `how all prompts of this task begin (${index.shared.length.toLocaleString("en")} characters)`);
      parts.push(make("details", "", summary, textBox(index.shared)));
    }
    parts.push(textBox(row.prompt));
    if (row.target) parts.push(make("h4", "", "What the data have as the answer"), textBox(row.target));
    if (row.texts.length) parts.push(make("h4", "", "Texts and their log-probs, in nats"), ...scored(row, index));
    const cards = index.checkpoints.map((name, i) => [name, i]).filter(([, i]) => !row.texts.length || remarkable(row.answers[i]));
    if (cards.length) {
      parts.push(make("h4", "", row.texts.length ? "What else is known of them" : "Checkpoints"));
      parts.push(make("div", "cards", ...cards.map(([name, i]) => card(row, index, name, i))));
    }
    return parts;
  }

  // Whether there is more to say of an answer than its log-probs.
  function remarkable(given) {
    return !given || given.reason || given.n_cut || given.unfinished || given.texts.length || given.prompt !== undefined;
  }

  // Texts that were scored, lettered, and every checkpoint's log-probs and numbers.
  function scored(row, index) {
    const names = row.texts.map((_, i) => letter(i));
    const choices = make("ol", "choices", ...row.texts.map((text, i) =>
      make("li", "", make("span", `role role-${row.roles[i]}`, `${names[i]} ${row.roles[i]}`), textBox(text))));
    const given = row.answers.filter(Boolean);
    const keys = [...new Set(given.flatMap((one) => Object.keys(one.numbers)))];
    const head = make("tr", "", make("th", "", "checkpoint"),
      ...[...names.map((name, i) => `${name} ${row.roles[i]}`), ...keys].map((text) => make("th", "number", text)));
    const body = row.answers.map((one, i) => {
      const best = Math.max(...(one?.logps ?? []).filter(Number.isFinite));
      const logps = names.map((_, j) => logp(one?.logps[j], one?.n_tokens[j], best));
      const numbers = keys.map((key) => make("td", "number", number(one?.numbers[key])));
      return make("tr", "", make("th", "", isolated(index.checkpoints[i])), ...logps, ...numbers);
    });
    const caption = make("caption", "", "Sums over tokens, below them mean × number of tokens; each checkpoint’s likeliest text in bold.");
    const table = make("table", "plain", caption, make("thead", "", head), make("tbody", "", ...body));
    const box = make("div", "scroll", table);
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Log-probs");
    return [choices, box];
  }

  function letter(i) {
    return i < 26 ? String.fromCharCode(65 + i) : String(i + 1);
  }

  function logp(value, n, best) {
    const cell = make("td", value === best ? "number likeliest" : "number", number(value));
    if (Number.isFinite(value) && n) cell.append(make("small", "", `${number((value / n).toFixed(3))} × ${n}`));
    return cell;
  }

  function card(row, index, name, i) {
    const given = row.answers[i];
    const box = make("section", "card", make("h5", "", isolated(name)));
    if (!given) {
      box.append(make("p", "hint", "was not asked"));
      return box;
    }
    if (given.reason) box.append(make("p", "reason", "missing: ", isolated(given.reason)));
    if (given.prompt !== undefined) {
      box.append(make("details", "", make("summary", "", "was sent another prompt"), textBox(given.prompt)));
    }
    given.texts.forEach((text) => box.append(textBox(text)));
    const marks = [];
    if (given.n_cut) marks.push(`${given.n_cut} tokens of the prompt were cut`);
    if (given.unfinished) marks.push("cut at the token limit");
    if (marks.length) box.append(make("p", "reason", marks.join("; ")));
    const numbers = Object.entries(given.numbers);
    if (numbers.length && !row.texts.length) {
      box.append(make("dl", "numbers", ...numbers.map(([key, value]) =>
        make("div", "", make("dt", "", key), make("dd", "", number(value))))));
    }
    for (const one of row.judged) {
      const comparison = index.comparisons[one.comparison];
      if (comparison.checkpoint === i) box.append(judged(one, comparison));
      if (comparison.other === i) box.append(turned(one, comparison, index.checkpoints[comparison.checkpoint]));
    }
    return box;
  }

  // --- verdicts

  function judged(one, comparison) {
    const box = make("div", "judged", make("p", "by", isolated(comparison.judge), ", against ", isolated(comparison.opponent), ": ",
      make("strong", "", one.win === null ? "no verdict" : `win ${number(one.win)}`)));
    if (one.reason) box.append(make("p", "reason", isolated(one.reason)));
    for (const verdict of one.verdicts) box.append(verdictOf(verdict));
    return box;
  }

  // The other side of a comparison, whose verdicts stand with the first.
  function turned(one, comparison, first) {
    const win = one.win === null ? "no verdict" : `win ${number(Number((1 - one.win).toPrecision(6)))}`;
    return make("div", "judged", make("p", "by", isolated(comparison.judge), ", against ", isolated(first), ": ", make("strong", "", win),
      "; its verdicts stand there"));
  }

  function verdictOf(verdict, name = null) {
    if (verdict.identical) return make("p", "verdict", "equal answers, which count half; nobody was asked");
    const shown = verdict.first === true ? "shown first" : verdict.first === false ? "shown second" : "";
    const said = {1: "preferred", 0: "not preferred", 0.5: "a tie"}[verdict.preference] ?? `preferred by ${number(verdict.preference)}`;
    const what = verdict.preference === null || verdict.preference === undefined ? "no verdict" : said;
    const line = make("p", "verdict", name && isolated(name), [name ? " " : "", shown, what].filter((part) => part.trim()).join(": "));
    const box = make("div", "", line);
    if (verdict.reason) line.append(" (", isolated(verdict.reason), ")");
    if (verdict.scores) {
      const [own, other] = verdict.scores.map((score) => number(Number(Number(score).toPrecision(4))));
      line.append(make("small", "", `rated ${own}, the opponent’s ${other}`));
    }
    if (verdict.label !== undefined) line.append(make("small", "", "read as ", isolated(String(verdict.label))));
    if (verdict.reply !== undefined) box.append(textBox(verdict.reply, "reply"));
    for (const [member, heard] of Object.entries(verdict.members ?? {})) box.append(verdictOf({...heard, first: verdict.first}, member));
    return box;
  }

  // --- controls

  function turnTo(page) {
    state.page = page;
    showList(state.turn);
    list.querySelector("button")?.focus();
  }

  let soon = 0;
  task.addEventListener("input", openTask);
  differ.addEventListener("input", choose);
  missing.addEventListener("input", choose);
  query.addEventListener("input", () => {
    clearTimeout(soon);
    soon = setTimeout(choose, 200);
  });
  back.addEventListener("click", () => turnTo(state.page - 1));
  on.addEventListener("click", () => turnTo(state.page + 1));
  list.addEventListener("keydown", (event) => {
    const step = {ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling"}[event.key];
    const other = step && event.target.closest("li")?.[step]?.firstElementChild;
    if (other) {
      event.preventDefault();
      other.focus();
    }
  });
  browser.hidden = false;
  // Not before somebody looks: a page that is opened for its table unpacks nothing.
  new IntersectionObserver((seen, observer) => {
    if (seen.some((one) => one.isIntersecting)) {
      observer.disconnect();
      openTask();
    }
  }, {rootMargin: "400px"}).observe(browser);
}

leaderboard();
samples();
