"use strict";

const byId = (id) => document.getElementById(id);

/* The index: cards whose name or class number fits, in the chosen order. A number is that of a
   class or a whole word of its name, so that "3" does not find "13" and "resnet34". */

function startIndex() {
  const list = document.querySelector(".cards");
  const cards = [...list.children].map((item) => ({
    item,
    power: Number(item.dataset.power),
    number: Number(item.dataset.class),
    name: item.querySelector(".name").textContent,
    words: "unnamed" in item.dataset ? [] : item.querySelector(".name").textContent.split(/[^\p{L}\p{N}]+/u),
    text: [...item.querySelectorAll(".name, small")].map((e) => e.textContent.toLowerCase()).join(" "),
  }));
  const orders = {
    strongest: (a, b) => b.power - a.power || a.number - b.number,
    weakest: (a, b) => a.power - b.power || a.number - b.number,
    name: (a, b) => a.name.localeCompare(b.name) || a.number - b.number,
    class: (a, b) => a.number - b.number,
  };
  let order = "strongest"; // as the page has them

  function fits(card, word) {
    if (!/^\d+$/.test(word)) return card.text.includes(word);
    return word === String(card.number) || card.words.includes(word);
  }

  function search() {
    const words = byId("search").value.trim().toLowerCase().split(/\s+/);
    let count = 0;
    for (const card of cards) {
      const shown = words.every((word) => fits(card, word));
      card.item.hidden = !shown;
      count += shown;
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
    return variant;
  }

  const first = variants.find((variant) => "first" in variant.dataset);
  const siblings = ofCanvas(first.dataset.canvas);
  radios[Number(first.dataset.canvas)].checked = true;
  slider.max = siblings.length - 1;
  slider.value = siblings.indexOf(first);
  byId("choice-area").hidden = variants.every((v) => ofCanvas(v.dataset.canvas).length === 1);
  byId("choices").addEventListener("input", () => {
    byId("status").textContent = show().dataset.status; // the slider itself says the area
  });
  byId("choices").addEventListener("submit", (event) => event.preventDefault());
  byId("choices").hidden = radios.length === 1 && byId("choice-area").hidden;
  show();
}

if (byId("find")) startIndex();
if (byId("choices")) startClass();
