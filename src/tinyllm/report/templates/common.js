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
