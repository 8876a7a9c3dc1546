// The wall: boards turn over, nothing burns in, and it says so when it is not live. Nobody touches it for weeks.
(() => {
  const body = document.body;
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const cover = byId("cover");
  const rotateMs = Number(body.dataset.rotate || 0) * 1000;
  const started = Date.now();
  const reloadMs = (6 * 60 - 30 + Math.random() * 60) * 60000;
  const shifts = [[0, 0], [4, 0], [8, 0], [8, 4], [8, 8], [4, 8], [0, 8], [0, 4], [4, 4]];
  const [dimFrom, dimTo] = (body.dataset.dim || "").split("-");
  let turned = Date.now();
  let at = 0;
  let coveredSince = 0;
  let reloading = false;

  // As large as asked for, or as large as all of it still fits: what is cut off is not seen by anyone.
  const asked = Number(root.dataset.scale || 100) / 100;
  const page = byId("page");
  let scale = asked;
  const fit = (from) => {
    scale = from;
    root.style.setProperty("--scale", scale.toFixed(3));
    while (innerWidth > 960 && page.scrollHeight > page.clientHeight && scale > asked / 4) {
      scale *= 0.95;
      root.style.setProperty("--scale", scale.toFixed(3));
    }
  };

  const boards = () => [...document.querySelectorAll(".wall-board")];
  const turn = () => {
    const all = boards();
    if (!rotateMs || all.length < 2) return;
    if (Date.now() - turned >= rotateMs) {
      at = (at + 1) % all.length;
      turned = Date.now();
    }
    body.dataset.shows = all[at % all.length].id;
    all.forEach((board, index) => { if (board.hidden !== (index !== at % all.length)) board.hidden = index !== at % all.length; });
  };

  const clock = () => {
    const now = new Date();
    const text = `${now.toISOString().slice(0, 10)} ${now.toISOString().slice(11, 16)} UTC`;
    const shown = byId("clock");
    if (shown && shown.textContent !== text) shown.textContent = text;
    const time = now.toISOString().slice(11, 16);
    const dim = dimFrom && dimTo && (dimFrom <= dimTo ? time >= dimFrom && time < dimTo : time >= dimFrom || time < dimTo);
    body.classList.toggle("dim", Boolean(dim));
    const [x, y] = shifts[Math.floor(now.getTime() / 60000) % shifts.length];
    root.style.setProperty("--shift-x", `${x}px`);
    root.style.setProperty("--shift-y", `${y}px`);
  };

  const guard = () => {
    const age = Number(body.dataset.age || 0);
    if (age >= 120 && body.dataset.mode !== "past") {
      coveredSince ||= Date.now() - age * 1000;
      const text = `NOT LIVE since ${new Date(coveredSince).toISOString().slice(11, 19)} UTC`;
      if (cover.textContent !== text) cover.textContent = text;
      cover.hidden = false;
    } else {
      coveredSince = 0;
      if (!cover.hidden) cover.hidden = true;
    }
  };

  // A fresh start now and then, and on a new build, only when the server is there, a little later than other walls.
  const reload = async () => {
    const build = body.dataset.newBuild;
    if (reloading || (!build && Date.now() - started < reloadMs)) return;
    reloading = true;
    if (build) await new Promise((done) => { setTimeout(done, Math.random() * 30000); });
    const answer = await fetch(`${body.dataset.root}healthz`, { cache: "no-store" }).catch(() => null);
    if (answer?.ok) location.reload();
    else setTimeout(() => { reloading = false; }, 30000);
  };

  const stayAwake = async () => {
    if (document.hidden) return;
    await navigator.wakeLock?.request("screen").catch(() => {});
  };
  document.addEventListener("visibilitychange", stayAwake);
  // It grows again with the next minute or board only: nothing should twitch.
  let fitted = "";
  const show = () => {
    turn();
    const now = `${Math.floor(Date.now() / 60000)} ${at}`;
    fit(fitted === now ? scale : asked);
    fitted = now;
  };
  document.addEventListener("htmx:after:swap", show);
  window.addEventListener("resize", () => fit(asked));
  stayAwake();
  const step = () => { show(); clock(); guard(); reload(); };
  step();
  setInterval(step, 1000);
})();
