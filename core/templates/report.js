"use strict";
(() => {
  const root = document.documentElement;
  const pairs = [...document.querySelectorAll(".pair")];
  if (!pairs.length) return;
  root.classList.add("js");

  const relation = document.getElementById("relation");
  const documents = document.getElementById("document");
  const shownCount = document.getElementById("shown");
  const nothing = document.querySelector(".filtered-out");
  const help = document.getElementById("help");
  const tierButtons = [...document.querySelectorAll(".toolbar [data-tier]")];
  let tier = "";
  let current = null;

  const shown = () => pairs.filter((pair) => !pair.classList.contains("filtered"));

  function filter() {
    for (const pair of pairs) {
      const fits =
        (!tier || pair.dataset.tier === tier) &&
        (!relation.value || pair.dataset.relation === relation.value) &&
        (!documents.value || pair.dataset.documents.split(" ").includes(documents.value));
      pair.classList.toggle("filtered", !fits);
    }
    for (const section of document.querySelectorAll("section.pairs")) {
      const all = [...section.querySelectorAll(".pair")];
      section.classList.toggle("filtered", all.length > 0 && all.every((pair) => pair.classList.contains("filtered")));
    }
    for (const button of tierButtons) button.setAttribute("aria-pressed", String(button.dataset.tier === tier));
    const count = shown().length;
    shownCount.textContent = count === pairs.length ? `${count} of ${count} pairs` : `${count} of ${pairs.length} pairs shown`;
    root.classList.toggle("filtering", count < pairs.length);
    nothing.hidden = count > 0;
    if (current && current.classList.contains("filtered")) select(null);
  }

  function setTier(value) {
    tier = value;
    filter();
  }

  function select(pair) {
    if (current) current.classList.remove("current");
    current = pair;
    if (current) current.classList.add("current");
  }

  function go(pair) {
    select(pair);
    pair.focus({ preventScroll: true });
    pair.scrollIntoView({ block: "start" });
  }

  function step(by) {
    const list = shown();
    if (!list.length) return;
    const at = list.indexOf(current);
    go(list[at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, at + by))]);
  }

  function cut(pair, percent) {
    const stage = pair.querySelector(".compare .stage");
    const box = stage.viewBox.baseVal;
    const x = box.x + (box.width * percent) / 100;
    const rect = stage.querySelector(".cut");
    rect.setAttribute("x", x);
    rect.setAttribute("width", box.x + box.width - x);
    const line = stage.querySelector(".divider");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }

  function mode(pair, wanted) {
    const stage = pair.querySelector(".compare .stage");
    if (!stage) return;
    const next = stage.dataset.mode === wanted ? "overlay" : wanted;
    stage.dataset.mode = next;
    const over = stage.querySelector(".over");
    if (next === "overlay") over.setAttribute("clip-path", over.dataset.cut);
    else if (next === "difference") over.setAttribute("clip-path", over.dataset.within);
    else over.removeAttribute("clip-path");
    const base = stage.querySelector(".base");
    if (next === "difference") base.setAttribute("clip-path", over.dataset.within);
    else base.removeAttribute("clip-path");
    for (const button of pair.querySelectorAll(".modes button")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === next));
    }
    pair.querySelector(".controls input").disabled = next !== "overlay";
    const caption = pair.querySelector(".caption");
    caption.textContent = caption.dataset[next];
  }

  for (const pair of pairs) {
    const slider = pair.querySelector(".controls input");
    pair.addEventListener("pointerdown", () => select(pair));
    pair.addEventListener("focusin", () => select(pair));
    if (!slider) continue;
    const stage = pair.querySelector(".compare .stage");
    slider.value = "50";
    slider.addEventListener("input", () => cut(pair, Number(slider.value)));
    for (const button of pair.querySelectorAll(".modes button")) {
      button.addEventListener("click", () => {
        if (stage.dataset.mode !== button.dataset.mode) mode(pair, button.dataset.mode);
      });
    }
    const drag = (event) => {
      if (stage.dataset.mode !== "overlay" || !(event.buttons & 1)) return;
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(stage.getScreenCTM().inverse());
      const percent = Math.min(100, Math.max(0, (100 * (point.x - stage.viewBox.baseVal.x)) / stage.viewBox.baseVal.width));
      slider.value = String(percent);
      cut(pair, percent);
    };
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      drag(event);
    });
    stage.addEventListener("pointermove", drag);
  }

  for (const button of tierButtons) button.addEventListener("click", () => setTier(button.dataset.tier));
  relation.addEventListener("change", filter);
  documents.addEventListener("change", filter);
  document.getElementById("help-button").addEventListener("click", () => help.showModal());

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    0: () => setTier(""),
    1: () => setTier("A"),
    2: () => setTier("B"),
    "?": () => help.showModal(),
    o: () => root.classList.toggle("bare"),
  };
  const pairKeys = {
    b: (pair) => mode(pair, "blink"),
    d: (pair) => mode(pair, "difference"),
    s: (pair) => {
      const stage = pair.querySelector(".compare .stage");
      if (!stage) return;
      if (stage.dataset.mode !== "overlay") mode(pair, "overlay");
      pair.querySelector(".controls input").focus({ preventScroll: true });
    },
    z: (pair) => {
      pair.classList.toggle("large");
      pair.scrollIntoView({ block: "start" });
    },
    p: (pair) => {
      const details = pair.querySelector(".provenance");
      details.open = !details.open;
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.target.closest("select, textarea")) return;
    const act = keys[event.key];
    if (act) {
      event.preventDefault();
      act();
      return;
    }
    const actOnPair = pairKeys[event.key];
    if (!actOnPair) return;
    event.preventDefault();
    const pair = current || shown()[0];
    if (!pair) return;
    if (!current) go(pair);
    actOnPair(pair);
  });

  window.addEventListener("beforeprint", () => {
    for (const pair of pairs) {
      const stage = pair.querySelector(".compare .stage");
      if (stage && stage.dataset.mode !== "overlay") mode(pair, "overlay");
    }
  });

  filter();
})();
