"use strict";
// Functions of both pages. Texts become text nodes. Nothing here parses HTML.
const page = {
  make(tag, kind, ...children) {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  },

  option(value, label) {
    const element = page.make("option", "", label);
    element.value = value;
    return element;
  },

  letter(index) {
    return index < 26 ? String.fromCharCode(65 + index) : String(index + 1);
  },

  // Some tools that fill in forms send only one of the two events of a list. Text is read after a pause in typing.
  onChange(form, update) {
    let timer = 0;
    const changed = (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => update(event.target.name), event.target.name === "text" ? 150 : 0);
    };
    for (const kind of ["input", "change"]) form.addEventListener(kind, changed);
    form.addEventListener("submit", (event) => event.preventDefault());
  },

  // The keyboard focus moves to the first new item.
  focusOn(item) {
    item.tabIndex = -1;
    item.focus({ preventScroll: true });
  },
};

// A click on the head of a column sorts a table by it: by the first number of each cell, by a duration or size, or by text.
(() => {
  const UNITS = { s: 1, min: 60, h: 3600, d: 86400, KiB: 1, MiB: 1024, GiB: 1048576 };

  function value(cell) {
    const text = cell.textContent.trim().replaceAll("\u2212", "-").replaceAll(",", "");
    const parts = [...text.matchAll(/([\d.]+)\s(s|min|h|d|KiB|MiB|GiB)\b/g)];
    if (parts.length && /^\d/.test(text)) return parts.reduce((sum, [, number, unit]) => sum + number * UNITS[unit], 0);
    const number = text.match(/[-+]?\d+(\.\d+)?/);
    return number && /^[^A-Za-z]*[-+\d]/.test(text) ? Number(number[0]) : text.toLowerCase();
  }

  function compare(one, other) {
    if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
    return typeof one === "number" ? -1 : 1; // cells without a number come last
  }

  for (const table of document.querySelectorAll("table.stack")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    heads.forEach((head, column) => {
      const button = page.make("button", "sort", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.ariaSort === "ascending";
        for (const other of heads) other.ariaSort = null;
        head.ariaSort = down ? "descending" : "ascending";
        const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
        rows.sort(([one], [other]) => (down ? compare(other, one) : compare(one, other)));
        body.replaceChildren(...rows.map(([, row]) => row));
      });
    });
  }
})();
