"use strict";

const byId = (id) => document.getElementById(id);

/* Tables: headings become buttons that sort; cells without a value stay last. */

function sortBy(table, index, direction) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[index].dataset.sort;
  const numeric = table.tHead.rows[0].cells[index].classList.contains("number");
  const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b);
  const rows = [...body.rows].sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return direction * compare(a, b);
  });
  body.append(...rows);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  const order = direction === 1 ? "ascending" : "descending";
  table.tHead.rows[0].cells[index].setAttribute("aria-sort", order);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const sorted = head.getAttribute("aria-sort");
      const up = sorted ? sorted === "descending" : first === "ascending";
      sortBy(table, index, up ? 1 : -1);
    });
  });
}

/* The filter: a row is shown if each of its facets is checked and its method has the text. */

const filter = byId("filter");

function applyFilter() {
  const part = byId("filter-method").value.trim().toLowerCase();
  const shown = new Map();
  for (const set of filter.querySelectorAll("fieldset")) {
    const checked = [...set.querySelectorAll("input:checked")].map((box) => box.value);
    shown.set(set.dataset.facet, new Set(checked));
  }
  for (const row of byId("tables").querySelectorAll("tbody tr")) {
    const facets = Object.entries(JSON.parse(row.dataset.facets));
    const fits = facets.every(([name, value]) => !shown.has(name) || shown.get(name).has(value));
    row.hidden = !fits || !row.cells[0].textContent.toLowerCase().includes(part);
  }
  for (const count of document.querySelectorAll(".count")) {
    const rows = [...byId(count.dataset.table).tBodies[0].rows];
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }
}

filter.addEventListener("input", applyFilter);
filter.addEventListener("submit", (event) => event.preventDefault());
filter.hidden = byId("hint").hidden = false;
applyFilter();

/* Patterns by area. */

const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

function showSlider(data) {
  const { height, width } = data;
  const pick = { model: byId("slider-model"), canvas: byId("slider-canvas") };
  pick.method = byId("slider-method");
  const slider = byId("slider-area");

  const fill = (select, names) => select.append(...names.map((name, i) => new Option(name, i)));
  fill(pick.model, data.models);
  fill(pick.canvas, data.canvases.map((canvas) => canvas.name));
  fill(pick.method, data.methods.map((method) => method.name));
  slider.max = data.areas.length - 1;
  slider.value = data.start;

  // the image that a pattern is cut from: some methods have colours of their own
  function paint(canvas, cell, area) {
    return cell && cell.pixels.length ? { pixels: cell.pixels[area] } : canvas;
  }

  function draw(element, canvas, mask) {
    const levels = decode(canvas.pixels);
    const bits = mask === null ? null : decode(mask);
    const channels = levels.length / (height * width);
    const image = new ImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      const kept = bits === null || (bits[i >> 3] >> (7 - (i & 7))) & 1;
      for (let c = 0; c < 3; c++) {
        const level = levels[i * channels + (channels === 1 ? 0 : c)];
        image.data[4 * i + c] = kept ? level : data.background[c];
      }
      image.data[4 * i + 3] = 255;
    }
    element.width = width;
    element.height = height;
    element.getContext("2d").putImageData(image, 0, 0);
  }

  function gauge(element, [value, low, high, without]) {
    const [fill, whisker, line] = element.children;
    fill.style.width = `${value}%`;
    whisker.style.left = `${low}%`;
    whisker.style.width = `${high - low}%`;
    if (line) line.style.left = `${without}%`;
  }

  const others = data.methods.map((method, number) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.innerHTML =
      '<canvas aria-hidden="true"></canvas><span class="name"></span>' +
      '<span class="gauge" aria-hidden="true"><span class="fill"></span>' +
      '<span class="whisker"></span></span><span class="value"></span>';
    const name = method.name.replace(/([a-z])([A-Z])/g, "$1\u200b$2"); // may break there
    button.querySelector(".name").textContent = name;
    button.addEventListener("click", () => {
      pick.method.value = number;
      show();
    });
    item.append(button);
    byId("slider-all").append(item);
    return button;
  });

  function show() {
    const area = Number(slider.value);
    const canvas = data.canvases[pick.canvas.value];
    const cells = data.cells[pick.model.value][pick.canvas.value];
    const method = data.methods[pick.method.value];
    const cell = cells[pick.method.value];
    const power = cell && cell.powers[area];
    draw(byId("slider-original"), canvas, null);
    draw(byId("slider-pattern"), paint(canvas, cell, area), cell ? cell.masks[area] : "");
    byId("slider-original").setAttribute("aria-label", `The canvas: ${canvas.name}`);
    const pattern = `${data.areas[area]} pixels, chosen by ${method.name}`;
    byId("slider-pattern").setAttribute("aria-label", cell ? pattern : "No pattern");
    byId("slider-how").textContent = `${method.name}: ${cell ? method.how : "failed on this model"}`;
    byId("slider-kept").textContent = data.areas[area];
    slider.setAttribute("aria-valuetext", `${data.areas[area]} pixels`);
    byId("slider-power").textContent = power ? power.text : "none";
    byId("slider-interval").textContent = power ? power.interval : "none";
    byId("slider-without").textContent = power ? power.without : "unknown";
    const cut = cell && cell.cut[area];
    byId("slider-cut").textContent = cut ? `Its map for the compared area, cut to this area: ${cut}.` : "";
    byId("slider-status").textContent = power ? `${power.text} with ${pattern}` : "No pattern";
    gauge(document.querySelector(".reading .gauge"), power ? power.percent : [0, 0, 0, 0]);
    others.forEach((button, number) => {
      const other = cells[number];
      draw(button.querySelector("canvas"), paint(canvas, other, area), other ? other.masks[area] : "");
      button.querySelector(".value").textContent = other ? other.powers[area].text : "failed";
      gauge(button.querySelector(".gauge"), other ? other.powers[area].percent : [0, 0, 0]);
      button.setAttribute("aria-pressed", String(number === Number(pick.method.value)));
    });
  }

  for (const control of [...Object.values(pick), slider]) control.addEventListener("input", show);
  document.querySelector("#slider form").addEventListener("submit", (event) => event.preventDefault());
  byId("slider").hidden = false;
  byId("slider-numbers").open = false;
  show();
}

if (byId("data")) showSlider(JSON.parse(byId("data").textContent));
