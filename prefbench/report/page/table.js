// The leaderboard: sorted by any column, filtered by task, method and text, one value explained.

function leaderboard() {
  const table = document.getElementById("board");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.querySelectorAll("th[data-column]")];
  const detail = document.getElementById("detail");
  const texts = rows.map((row) => [
    row.dataset.name, row.dataset.method, ...[...row.cells].map((cell) =>
      cell.classList.contains("missing") || cell.tagName === "TH" ? `${cell.textContent} ${cell.title}` : ""),
  ].join(" ").toLowerCase());

  // --- sorting: the better end first, then the other, then as it was

  function valueOf(row, column) {
    const text = row.cells[column + 1].dataset.value;
    return text === "" ? NaN : Number(text);
  }

  function sortBy(head) {
    const column = Number(head.dataset.column);
    const first = head.dataset.better === "down" || column < 0 ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const wanted = now === first ? other : now === other ? null : first;
    for (const each of heads) each.removeAttribute("aria-sort");
    if (wanted) head.setAttribute("aria-sort", wanted);
    const sign = wanted === "descending" ? -1 : 1;
    const order = (row) => Number(row.dataset.row);
    const sorted = [...rows].sort((one, two) => {
      if (!wanted || column < 0) return (wanted ? sign : 1) * (order(one) - order(two));
      const [a, b] = [valueOf(one, column), valueOf(two, column)];
      if (Number.isNaN(a) || Number.isNaN(b)) {  // what is missing is last either way
        return Number.isNaN(a) - Number.isNaN(b) || order(one) - order(two);
      }
      return sign * (a - b) || order(one) - order(two);
    });
    body.append(...sorted);
  }

  for (const head of heads) {
    const button = make("button", "sort");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(head));
  }

  // --- filters

  const controls = {
    tasks: document.getElementById("filter-tasks"),
    method: document.getElementById("filter-method"),
    text: document.getElementById("filter-text"),
  };
  const count = document.getElementById("filter-count");

  function filter() {
    const chosen = controls.tasks.value.trim();
    const groups = chosen ? new Set(chosen.split(/\s+/)) : null;
    for (const cell of table.querySelectorAll("[data-group]")) {
      cell.hidden = groups !== null && !groups.has(cell.dataset.group);
    }
    const words = controls.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    rows.forEach((row, i) => {
      const method = controls.method.selectedIndex === 0 || row.dataset.method === controls.method.value;
      row.hidden = !(method && words.every((word) => texts[i].includes(word)));
      n += !row.hidden;
    });
    count.textContent = `${n} of ${rows.length} checkpoints`;
  }

  for (const control of Object.values(controls)) control.addEventListener("input", filter);
  document.getElementById("filters").hidden = false;
  filter();

  // --- one value explained: by pointer, or by the arrow keys from value to value

  function explain(cell) {
    const lines = cell.title.split("\n");
    detail.hidden = false;
    detail.replaceChildren(
      make("strong", "", isolated(lines[0])),
      ...lines.slice(1).map((line) => make("span", "", isolated(line))),
    );
    for (const other of body.querySelectorAll(".explained")) other.classList.remove("explained");
    cell.classList.add("explained");
  }

  function next(cell, key) {
    const there = [...cell.parentElement.cells].filter((each) => !each.hidden && each.tagName === "TD");
    if (key === "ArrowRight") return there[there.indexOf(cell) + 1];
    if (key === "ArrowLeft") return there[there.indexOf(cell) - 1];
    if (key === "Home") return there[0];
    if (key === "End") return there.at(-1);
    const down = key === "ArrowDown" ? "nextElementSibling" : key === "ArrowUp" ? "previousElementSibling" : "";
    let row = down && cell.parentElement[down];
    while (row && row.hidden) row = row[down];
    return row ? row.cells[cell.cellIndex] : undefined;
  }

  for (const cell of body.querySelectorAll("td")) cell.tabIndex = -1;
  const start = body.querySelector("td");
  if (start) start.tabIndex = 0;
  body.addEventListener("focusin", (event) => {
    if (event.target.tagName !== "TD") return;
    for (const cell of body.querySelectorAll("td[tabindex='0']")) cell.tabIndex = -1;
    event.target.tabIndex = 0;
    explain(event.target);
  });
  body.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (cell) cell.focus();
  });
  body.addEventListener("keydown", (event) => {
    const cell = event.target.tagName === "TD" && next(event.target, event.key);
    if (cell) {
      event.preventDefault();
      cell.focus();
    }
  });
}
