// The player on a call's page. Without it the plain <audio> of the page plays too.
//
// Links to audio work for 60 seconds. What was begun in time plays on; to begin again, or to move elsewhere, the player
// asks for a new link first.

const FRESH_MS = 50_000;
const STEP_S = 10;
const QUIET = 6; // of 255: below it a step is silence
const SHORTEST_SILENCE_S = 1.5;

const clock = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const end = `${hours ? String(minutes).padStart(2, "0") : minutes}:${String(rest).padStart(2, "0")}`;
  return hours ? `${hours}:${end}` : end;
};

class Player {
  constructor(box) {
    this.box = box;
    this.audio = box.querySelector("audio");
    this.names = box.dataset.channels.split("|");
    this.linkedAt = performance.now();
    this.muted = this.names.map(() => false);
    this.solo = -1;
    this.levels = [];
    this.stepS = 0;
    this.silences = [];
    this.gains = null;
    this.wanted = null;
    this.build();
  }

  build() {
    this.box.append(document.getElementById("player").content.cloneNode(true));
    this.audio.controls = false;
    this.part = (name) => this.box.querySelector(`[data-do="${name}"]`);
    this.output = this.box.querySelector(".clock");
    this.problem = this.box.querySelector('[role="alert"]');
    this.rows = this.names.map((name, channel) => this.row(name, channel));
    this.part("play").addEventListener("click", () => this.toggle());
    this.part("back").addEventListener("click", () => this.move(-STEP_S));
    this.part("ahead").addEventListener("click", () => this.move(STEP_S));
    this.part("speed").addEventListener("change", (event) => this.setSpeed(Number(event.target.value)));
    this.part("seek").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    this.part("copy").addEventListener("click", () => this.copyLink());
    for (const name of ["play", "pause", "timeupdate", "loadedmetadata", "durationchange", "ended"]) {
      this.audio.addEventListener(name, () => this.show());
    }
    this.audio.addEventListener("timeupdate", () => this.skipSilence());
    this.audio.addEventListener("error", () => this.failed());
    this.box.addEventListener("pointerdown", () => (Player.active = this));
    this.box.addEventListener("focusin", () => (Player.active = this));
    new ResizeObserver(() => this.draw()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new IntersectionObserver((entries, observer) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        this.loadPeaks();
      }
    }).observe(this.box);
    this.show();
  }

  row(name, channel) {
    const row = document.getElementById("channel").content.firstElementChild.cloneNode(true);
    const [mute, solo] = row.querySelectorAll("button");
    const canvas = row.querySelector("canvas");
    row.querySelector(".name").textContent = name;
    mute.setAttribute("aria-label", `Mute ${name}`);
    mute.addEventListener("click", () => this.toggleMute(channel));
    solo.setAttribute("aria-label", `Solo ${name}`);
    solo.addEventListener("click", () => this.toggleSolo(channel));
    mute.hidden = solo.hidden = this.names.length < 2;
    canvas.setAttribute("aria-label", `Waveform: ${name}`);
    canvas.addEventListener("click", (event) => this.seek((event.offsetX / canvas.clientWidth) * this.duration));
    this.box.querySelector(".channels").append(row);
    return row;
  }

  get duration() {
    const steps = this.levels.length ? this.levels[0].length * this.stepS : 0;
    return Number.isFinite(this.audio.duration) ? this.audio.duration : steps;
  }

  get position() {
    return this.wanted ?? this.audio.currentTime;
  }

  // Links

  get isFresh() {
    return performance.now() - this.linkedAt < FRESH_MS;
  }

  async freshLink() {
    const { day, account, uii, recording } = this.box.dataset;
    const answer = await fetch(`/link?${new URLSearchParams({ day, account, uii, recording })}`);
    if (!answer.ok || answer.redirected) throw new Error("no link");
    Object.assign(this.box.dataset, await answer.json());
    this.linkedAt = performance.now();
  }

  async load(at) {
    if (!this.isFresh) await this.freshLink();
    this.audio.preload = "auto";
    this.audio.src = this.box.dataset.audio;
    this.audio.playbackRate = Number(this.part("speed").value);
    await new Promise((done, failed) => {
      this.audio.addEventListener("loadedmetadata", done, { once: true });
      this.audio.addEventListener("error", failed, { once: true });
      this.audio.load();
    });
    if (at) this.audio.currentTime = at;
    this.wanted = null;
  }

  failed() {
    if (this.retried || !this.audio.error) return;
    this.retried = true;
    const [at, playing] = [this.position, !this.audio.paused];
    this.linkedAt = -Infinity;
    this.begin(at, playing);
  }

  async begin(at, playing) {
    try {
      await this.load(at);
      if (playing) await this.audio.play();
      this.retried = false;
      this.say("");
    } catch (error) {
      if (error?.name !== "AbortError") {
        this.say("The recording cannot be played now: load the page again, or check its bytes below.");
      }
    }
    this.show();
  }

  // What buttons and keys do

  async toggle() {
    this.wire();
    if (!this.audio.paused) return this.audio.pause();
    for (const other of players) if (other !== this) other.audio.pause();
    const isLoaded = this.audio.readyState > 0 && !this.audio.error;
    if (!isLoaded || !(this.isFresh || this.isBuffered(this.audio.currentTime))) return this.begin(this.position, true);
    return this.audio.play().catch((error) => error.name === "AbortError" || this.failed());
  }

  seek(seconds) {
    const to = Math.min(Math.max(0, seconds), Math.max(0, this.duration - 0.05) || seconds);
    if (this.audio.readyState === 0) this.wanted = to;
    else if (this.isFresh || this.isBuffered(to)) this.audio.currentTime = to;
    else this.begin(to, !this.audio.paused);
    this.show();
  }

  isBuffered(at) {
    const { buffered } = this.audio;
    return [...Array(buffered.length).keys()].some((n) => buffered.start(n) <= at && at < buffered.end(n) - 0.5);
  }

  move(by) {
    this.seek(this.position + by);
  }

  setSpeed(speed) {
    this.part("speed").value = String(speed);
    this.audio.playbackRate = speed;
  }

  faster(by) {
    const { options, selectedIndex } = this.part("speed");
    if (options[selectedIndex + by]) this.setSpeed(Number(options[selectedIndex + by].value));
  }

  toggleMute(channel) {
    if (!(channel in this.muted) || this.names.length < 2) return;
    this.muted[channel] = !this.muted[channel];
    this.mix();
  }

  toggleSolo(channel) {
    this.solo = this.solo === channel ? -1 : channel;
    this.mix();
  }

  copyLink() {
    const place = this.box.dataset.place === "1" ? "" : `&r=${this.box.dataset.place}`;
    const hash = `#t=${Math.floor(this.position)}${place}`;
    history.replaceState(null, "", hash);
    navigator.clipboard?.writeText(location.href).catch(() => {});
    this.part("copy").textContent = `Link to ${clock(this.position)} is in the address`;
  }

  say(sentence) {
    this.problem.hidden = !sentence;
    this.problem.textContent = sentence;
  }

  // Sound: each channel has a gain for each ear, so that one that is heard alone is heard with both.

  wire() {
    if (this.gains || this.names.length < 2) return;
    Player.context ??= new AudioContext();
    Player.context.resume();
    const context = Player.context;
    const source = context.createMediaElementSource(this.audio);
    const [splitter, merger] = [context.createChannelSplitter(2), context.createChannelMerger(2)];
    source.connect(splitter);
    merger.connect(context.destination);
    this.gains = this.names.map((_, channel) =>
      [0, 1].map((ear) => {
        const gain = context.createGain();
        splitter.connect(gain, channel);
        gain.connect(merger, 0, ear);
        return gain;
      }),
    );
    this.mix();
  }

  isHeard(channel) {
    return this.solo >= 0 ? this.solo === channel : !this.muted[channel];
  }

  mix() {
    const heard = this.names.map((_, channel) => this.isHeard(channel));
    const isAlone = heard.filter(Boolean).length === 1;
    this.gains?.forEach((ears, channel) =>
      ears.forEach((gain, ear) => (gain.gain.value = heard[channel] && (isAlone || ear === channel) ? 1 : 0)),
    );
    this.rows.forEach((row, channel) => {
      row.classList.toggle("silent", !heard[channel]);
      const [mute, solo] = row.querySelectorAll("button");
      mute.setAttribute("aria-pressed", String(this.muted[channel]));
      solo.setAttribute("aria-pressed", String(this.solo === channel));
    });
    this.findSilences();
  }

  // Waveform and silence

  async loadPeaks() {
    try {
      if (!this.isFresh) await this.freshLink();
      const answer = await fetch(this.box.dataset.peaks);
      if (!answer.ok) return;
      const peaks = await answer.json();
      this.levels = peaks.channels.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
      this.stepS = peaks.step_s;
      this.findSilences();
    } catch {
      this.levels = []; // a waveform is a help and no condition
    }
    this.box.dataset.waveform = String(this.levels.length);
    this.show();
    this.draw();
  }

  findSilences() {
    this.silences = [];
    const heard = this.levels.filter((_, channel) => this.levels.length < 2 || this.isHeard(channel));
    if (!heard.length) return;
    let from = -1;
    for (let step = 0; step <= heard[0].length; step += 1) {
      const isQuiet = step < heard[0].length && heard.every((levels) => levels[step] < QUIET);
      if (isQuiet && from < 0) from = step;
      if (!isQuiet && from >= 0) {
        const [start, end] = [from * this.stepS, step * this.stepS];
        if (end - start >= SHORTEST_SILENCE_S) this.silences.push([start + 0.3, end - 0.2]);
        from = -1;
      }
    }
  }

  skipSilence() {
    if (!this.part("skip").checked || this.audio.paused) return;
    const at = this.audio.currentTime;
    const silence = this.silences.find(([start, end]) => start <= at && at < end - 0.1);
    if (silence) this.seek(silence[1]);
  }

  draw() {
    this.rows.forEach((row, channel) => {
      const canvas = row.querySelector("canvas");
      const scale = devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
      if (!width) return;
      [canvas.width, canvas.height] = [width, height];
      const paint = canvas.getContext("2d");
      const levels = this.levels[channel];
      if (levels) {
        paint.fillStyle = getComputedStyle(row.querySelector(".name")).color;
        for (let x = 0; x < width; x += 1) {
          const [first, last] = [x, x + 1].map((edge) => Math.floor((edge / width) * levels.length));
          let loudest = 0;
          for (let step = first; step <= Math.max(first, last - 1); step += 1) loudest = Math.max(loudest, levels[step]);
          const tall = Math.max(1, Math.sqrt(loudest / 255) * height * 0.95);
          paint.fillRect(x, (height - tall) / 2, 1, tall);
        }
      }
      if (this.duration) {
        paint.fillStyle = getComputedStyle(document.body).color;
        paint.fillRect((this.position / this.duration) * width - 1, 0, 2 * scale, height);
      }
    });
  }

  show() {
    this.part("play").textContent = this.audio.paused ? "Play" : "Pause";
    this.output.textContent = `${clock(this.position)} / ${clock(this.duration)}`;
    const seek = this.part("seek");
    seek.max = String(this.duration || 1);
    seek.value = String(this.position);
    seek.setAttribute("aria-valuetext", `${clock(this.position)} of ${clock(this.duration)}`);
    this.draw();
  }

  key(event) {
    const acts = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.move(-STEP_S),
      ArrowRight: () => this.move(STEP_S),
      1: () => this.toggleMute(0),
      2: () => this.toggleMute(1),
      "+": () => this.faster(1),
      "-": () => this.faster(-1),
      s: () => this.part("skip").click(),
    };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  }
}

const players = [...document.querySelectorAll(".player")].map((box) => new Player(box));
Player.active = players[0];

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea, summary, a, button");
  const isSpaceOnButton = event.key === " " && isTyping;
  const isField = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || isSpaceOnButton || isField) return;
  Player.active?.key(event);
});

const followAddress = () => {
  const place = new URLSearchParams(location.hash.slice(1));
  const seconds = Number(place.get("t"));
  const player = players.find((each) => each.box.dataset.place === (place.get("r") ?? players[0]?.box.dataset.place));
  if (!place.has("t") || !player || !Number.isFinite(seconds)) return;
  Player.active = player;
  player.seek(seconds);
  player.box.scrollIntoView({ block: "center" });
};

addEventListener("hashchange", followAddress);
followAddress();
