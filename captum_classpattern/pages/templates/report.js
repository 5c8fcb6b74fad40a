"use strict";

const byId = (id) => document.getElementById(id);

/* Patterns by area. */

const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

function showSlider(data) {
  const { height, width, start } = data;
  const slider = byId("slider-area");
  const canvases = byId("slider-canvas");
  const chosen = { model: start.model, method: start.method };
  canvases.append(...data.canvases.map((canvas, i) => new Option(canvas.name, i)));
  canvases.value = start.canvas;
  slider.max = data.areas.length - 1;
  slider.value = start.area;

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

  // one button for each model or method, with its pattern
  function makeCards(kind, names) {
    const part = byId(kind === "model" ? "slider-models" : "slider-all");
    const list = part.querySelector("ul");
    part.hidden = names.length < 2;
    return names.map((name, number) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML =
        '<canvas aria-hidden="true"></canvas><span class="name"></span>' +
        '<span class="gauge" aria-hidden="true"><span class="fill"></span>' +
        '<span class="whisker"></span></span><span class="value"></span>';
      const breakable = name.replace(/([a-z])([A-Z])/g, "$1\u200b$2");
      button.querySelector(".name").textContent = breakable;
      button.addEventListener("click", () => {
        chosen[kind] = number;
        show();
      });
      item.append(button);
      list.append(item);
      return button;
    });
  }

  const models = makeCards("model", data.models);
  const methods = makeCards("method", data.methods.map((method) => method.name));
  data.methods.forEach((method, i) => methods[i].classList.toggle("control", method.control));

  function showCard(button, canvas, cell, area, pressed) {
    draw(button.querySelector("canvas"), paint(canvas, cell, area), cell ? cell.masks[area] : "");
    button.querySelector(".value").textContent = cell ? cell.powers[area].text : "failed";
    gauge(button.querySelector(".gauge"), cell ? cell.powers[area].percent : [0, 0, 0]);
    button.setAttribute("aria-pressed", String(pressed));
  }

  function show() {
    const area = Number(slider.value);
    const canvas = data.canvases[canvases.value];
    const cells = data.cells[chosen.model][canvases.value];
    const method = data.methods[chosen.method];
    const model = data.models[chosen.model];
    const cell = cells[chosen.method];
    const power = cell && cell.powers[area];
    draw(byId("slider-original"), canvas, null);
    draw(byId("slider-pattern"), paint(canvas, cell, area), cell ? cell.masks[area] : "");
    byId("slider-original").setAttribute("aria-label", `The canvas: ${canvas.name}`);
    const pattern = `${data.areas[area]} pixels, chosen by ${method.name} on ${model}`;
    byId("slider-pattern").setAttribute("aria-label", cell ? pattern : "No pattern");
    byId("slider-name").textContent = `${method.name} on ${model}`;
    byId("slider-how").textContent = cell ? method.how : "failed on this model";
    byId("slider-kept").textContent = data.areas[area];
    slider.setAttribute("aria-valuetext", `${data.areas[area]} pixels`);
    byId("slider-power").textContent = power ? power.text : "none";
    byId("slider-images").textContent = power ? power.images : "no";
    byId("slider-class").textContent = canvas.class;
    byId("slider-interval").textContent = power ? power.interval : "none";
    byId("slider-without").textContent = power ? power.without : "unknown";
    const others = data.methods.map((other, i) => [other, cells[i], i]);
    const controls = others.filter(([other, its, i]) => other.control && its && i !== chosen.method);
    const texts = controls.map(([other, its]) => `${other.name}\u00a0${its.powers[area].text}`);
    byId("slider-controls").hidden = texts.length === 0;
    byId("slider-controls").querySelector("dd").textContent = texts.join(", ");
    byId("slider-status").textContent = power ? `${power.text} with ${pattern}` : "No pattern";
    gauge(document.querySelector(".reading .gauge"), power ? power.percent : [0, 0, 0, 0]);
    byId("slider-models-heading").textContent = `${method.name} on each model`;
    byId("slider-all-heading").textContent = `Each method on ${model}`;
    models.forEach((button, i) => {
      const its = data.cells[i][canvases.value][chosen.method];
      showCard(button, canvas, its, area, i === chosen.model);
    });
    methods.forEach((button, i) => {
      showCard(button, canvas, cells[i], area, i === chosen.method);
      const percent = cells[i] ? cells[i].powers[area].percent[0] : -1;
      button.parentElement.style.order = Math.round(-100 * percent); // the strongest first
    });
  }

  for (const control of [canvases, slider]) control.addEventListener("input", show);
  document.querySelector("#slider form").addEventListener("submit", (event) => event.preventDefault());
  byId("slider").hidden = false;
  byId("without-slider").hidden = true;
  show();
}

if (byId("data")) showSlider(JSON.parse(byId("data").textContent));

/* Boxes that are too narrow for what they hold say so. */

const watched = new ResizeObserver((entries) => {
  for (const { target: box } of entries) {
    box.previousElementSibling.hidden = box.scrollWidth <= box.clientWidth + 1;
  }
});

for (const box of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "Scroll →";
  hint.hidden = true;
  hint.setAttribute("aria-hidden", "true");
  box.before(hint);
  watched.observe(box);
}
