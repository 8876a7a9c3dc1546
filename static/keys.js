// Keys, copying, and selecting many. All of it can be done without this file.
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.body.dataset.root;
  let went = 0;
  // From the past one goes to the past, and with some projects to the same ones.
  const go = (page) => {
    const kept = [...new URL(location.href).searchParams].filter(([name]) => name === "at" || name === "project_id");
    location.href = kept.length ? `${root}${page}?${new URLSearchParams(kept)}` : root + page;
  };

  const copy = async (text) => {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    return undefined;
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const source = byId(button.dataset.copy);
    await copy(source.value ?? source.textContent);
    byId("announce").textContent = "Copied";
    const words = button.textContent;
    if (words === "Copied ✓") return;
    button.textContent = "Copied ✓";
    setTimeout(() => { button.textContent = words; }, 2000);
  });

  // One place in time on all charts: pointed at, or gone to by arrow keys; what each chart has there is told below.
  const point = (bucket) => {
    const charts = document.querySelectorAll(".plot .lines");
    const place = bucket && [...bucket.parentElement.querySelectorAll("a")].indexOf(bucket);
    const told = [];
    for (const chart of charts) {
      const buckets = [...chart.querySelectorAll("a")];
      buckets.forEach((other, index) => other.classList.toggle("here", index === place));
      const label = buckets[place]?.getAttribute("aria-label");
      if (label) told.push(told.length ? label.replace(/^.*?UTC: /, "") : label);
    }
    const text = told.join(" · ");
    const shown = byId("bucket");
    if (shown && shown.textContent !== text) shown.textContent = text;
  };
  document.addEventListener("pointermove", (event) => {
    const bucket = event.target.closest?.(".plot a");
    if (bucket || event.target.closest?.(".charts")) point(bucket);
  }, { passive: true });
  document.addEventListener("focusin", (event) => {
    const bucket = event.target.closest?.(".plot a");
    if (bucket) point(bucket);
  });
  document.addEventListener("keydown", (event) => {
    const bucket = event.target.closest?.(".plot a");
    const step = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
    if (!bucket || !step) return;
    event.preventDefault();
    let next = bucket[step];
    if (next?.tagName !== "a") next = null;
    next?.focus();
  });

  // A range with the shift key, as in lists elsewhere.
  let last = null;
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (!box.matches?.("input.select")) return;
    const boxes = [...document.querySelectorAll("input.select")];
    if (event.shiftKey && last && boxes.includes(last)) {
      const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
      for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
    }
    last = box;
  });

  // By mouse a slider is let go; by keyboard one goes on and presses the button.
  document.addEventListener("pointerup", (event) => {
    if (event.target.matches?.("[data-submit]")) setTimeout(() => event.target.form.requestSubmit());
  });

  // One menu at a time; a click elsewhere and Esc close them, and focus goes back to what opened it.
  const menus = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("click", (event) => {
    for (const menu of menus()) if (!menu.contains(event.target)) menu.open = false;
  });

  const move = (by) => {
    const links = [...document.querySelectorAll("#page .row-link, #page tbody th a, #page .rows a")];
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))].focus();
  };
  const select = () => {
    const box = document.activeElement?.closest("tr")?.querySelector("input.select");
    if (box) box.checked = !box.checked;
  };
  const search = () => {
    const box = byId("q") ?? document.querySelector("#filters input") ?? byId("jump");
    const closed = box?.closest("details:not([open])");
    if (closed) closed.open = true;
    box?.focus();
  };
  const close = () => {
    const open = [...menus()].pop() ?? [...document.querySelectorAll(".actions details[open]")].pop();
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  };
  const single = {
    "?": () => { location.href = `${root}help`; },
    "/": search,
    j: () => move(1),
    k: () => move(-1),
    x: select,
    r: () => document.dispatchEvent(new Event("taskwatch:refresh")),
    p: () => document.dispatchEvent(new Event("taskwatch:pause")),
    W: () => { go("wall"); },
  };

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (document.body.dataset.keys === "off" || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest?.("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]")) return;
    const page = Date.now() - went < 1500 && document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    if (page) {
      went = 0;
      location.href = page.href;
      return;
    }
    went = event.key === "g" ? Date.now() : 0;
    const act = single[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
})();
