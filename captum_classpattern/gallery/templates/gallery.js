"use strict";

const byId = (id) => document.getElementById(id);

/* The index: cards whose name or class number fits, in the chosen order. */

function startIndex() {
  const list = document.querySelector(".cards");
  const cards = [...list.children].map((item) => ({
    item,
    power: Number(item.dataset.power),
    number: Number(item.dataset.class),
    name: item.querySelector(".name").textContent,
    text: [...item.querySelectorAll(".name, small")].map((e) => e.textContent.toLowerCase()).join(" "),
  }));
  const orders = {
    strongest: (a, b) => b.power - a.power || a.number - b.number,
    weakest: (a, b) => a.power - b.power || a.number - b.number,
    name: (a, b) => a.name.localeCompare(b.name) || a.number - b.number,
    class: (a, b) => a.number - b.number,
  };
  let order = "strongest"; // as the page has them

  function search() {
    const words = byId("search").value.trim().toLowerCase().split(/\s+/);
    let count = 0;
    for (const card of cards) {
      const fits = words.every((word) => card.text.includes(word) || word === String(card.number));
      card.item.hidden = !fits;
      count += fits;
    }
    byId("count").textContent = `${count} of ${cards.length} classes`;
  }

  function sort() {
    if (byId("sort").value === order) return;
    order = byId("sort").value;
    list.append(...cards.sort(orders[order]).map((card) => card.item));
  }

  byId("search").addEventListener("input", search);
  byId("sort").addEventListener("input", sort);
  byId("find").addEventListener("submit", (event) => event.preventDefault());
  byId("find").hidden = false;
  // browsers fill in the fields again when someone comes back
  window.addEventListener("pageshow", () => { search(); sort(); });
}

/* A class: one of its patterns at a time. Without this script, all are shown. */

function startClass() {
  const variants = [...document.querySelectorAll(".variant")];
  const radios = [...document.querySelectorAll("#choice-canvas input")];
  const slider = byId("area");
  const ofCanvas = (index) => variants.filter((variant) => variant.dataset.canvas === index);

  function show() {
    const chosen = ofCanvas(radios.find((radio) => radio.checked).value);
    slider.max = chosen.length - 1;
    const variant = chosen[Number(slider.value)];
    for (const other of variants) other.hidden = other !== variant;
    byId("kept").textContent = variant.dataset.kept;
    slider.setAttribute("aria-valuetext", variant.dataset.kept);
    byId("status").textContent = variant.dataset.status;
  }

  const first = variants.find((variant) => "first" in variant.dataset);
  const siblings = ofCanvas(first.dataset.canvas);
  radios[Number(first.dataset.canvas)].checked = true;
  slider.max = siblings.length - 1;
  slider.value = siblings.indexOf(first);
  byId("choice-area").hidden = variants.every((v) => ofCanvas(v.dataset.canvas).length === 1);
  byId("choices").addEventListener("input", show);
  byId("choices").addEventListener("submit", (event) => event.preventDefault());
  byId("choices").hidden = radios.length === 1 && byId("choice-area").hidden;
  show();
}

if (byId("find")) startIndex();
if (byId("choices")) startClass();
