/* Nothing typed is lost: at once in this browser, after a moment on the server.
   The server counts versions; a save that was made from an older one is turned back, and the
   person chooses which of the two to keep. */

import { Away, Refused, beacon, post } from "./send.js";

const PAUSE = 2000;
const RETRY = 5000;

export class Draft {
  /** task: the element with data-draft-url, data-keep-url, data-version, data-key, data-seat and data-lease.
      read() gives the draft; restore(draft) shows one; time is the ActiveTime. */
  constructor(task, { read, restore, time }) {
    Object.assign(this, { task, read, restore, time });
    this.version = Number(task.dataset.version);
    this.key = `bothsides:${task.dataset.key}`;
    this.saved = JSON.stringify(read());
    this.leaving = () => this.leave();
    this.online = () => this.save();
    addEventListener("pagehide", this.leaving);
    addEventListener("online", this.online);
    // Long before the lease runs out, and seldom.
    this.keeper = setInterval(() => this.keep(), Math.min(240, Number(task.dataset.lease) / 4) * 1000);
    this.compare();
    // A slot that was fetched ahead becomes the one that is worked on.
    if (task.dataset.seat !== "1") this.keep(true);
  }

  get now() {
    return JSON.stringify(this.read());
  }

  /** What this browser still has of the task, against what the server has shown. */
  compare() {
    let kept;
    try {
      kept = JSON.parse(localStorage.getItem(this.key));
    } catch {
      kept = null;
    }
    if (!kept || JSON.stringify(kept.draft) === this.saved) return;
    if (kept.version >= this.version) {
      this.restore(kept.draft);
      this.changed();
    } else {
      this.choose("A newer draft of this came from another tab. This browser also keeps an older one.", kept.draft, "Bring the older one back");
    }
  }

  changed() {
    const now = this.now;
    try {
      localStorage.setItem(this.key, JSON.stringify({ version: this.version, draft: JSON.parse(now) }));
    } catch {
      // Storage is full or forbidden: the server's copy remains.
    }
    if (now === this.saved) return;
    this.say("");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE);
  }

  async save() {
    if (this.ended || this.conflict) return;
    if (this.saving) {
      this.again = true;
      return;
    }
    const now = this.now;
    if (now === this.saved) return;
    this.saving = true;
    try {
      const answer = await post(this.task.dataset.draftUrl, { draft: now, version: this.version, active_seconds: this.time.seconds });
      this.adopt(answer.version, now);
      this.say("Saved");
    } catch (error) {
      this.failed(error);
    } finally {
      this.saving = false;
      if (this.again) {
        this.again = false;
        this.save();
      }
    }
  }

  adopt(version, text) {
    this.version = version;
    this.saved = text;
    if (this.now !== text) {
      this.changed();
      return;
    }
    try {
      localStorage.removeItem(this.key);
    } catch {
      // As above.
    }
  }

  failed(error) {
    if (this.ended) return;
    if (error instanceof Away) {
      this.say("No connection: kept in this browser, trying again", true);
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.save(), RETRY);
    } else if (error instanceof Refused && error.answer.code === "draft_conflict") {
      this.conflict = error.answer;
      this.choose(error.message, error.answer.current, "Use the newer one", "Keep mine");
    } else {
      this.say(error.message, true);
    }
  }

  /** Two drafts, one person: offer the other one. */
  choose(text, other, use, keep = "") {
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.setAttribute("role", "alert");
    notice.append(text, " ");
    const button = (label, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = label;
      made.addEventListener("click", () => {
        if (this.conflict) this.version = this.conflict.version;
        this.conflict = null;
        notice.remove();
        act();
      });
      notice.append(made, " ");
    };
    button(use, () => {
      this.restore(other);
      this.changed();
    });
    if (keep) button(keep, () => this.save());
    this.task.querySelector("[data-notices]").replaceChildren(notice);
  }

  /** The server keeps a task for so long only; somebody who reads types nothing. */
  async keep(now = false) {
    if (this.ended || (!now && !this.time.working)) return;
    try {
      await post(this.task.dataset.keepUrl);
      this.task.dataset.seat = "1";
    } catch (error) {
      if (error instanceof Refused) this.say(error.message, true);
    }
  }

  leave() {
    if (this.ended || this.conflict || this.now === this.saved) return;
    beacon(this.task.dataset.draftUrl, { draft: this.now, version: this.version, active_seconds: this.time.seconds });
  }

  /** The work is sent or given up: nothing is saved any more. */
  end() {
    this.ended = true;
    clearTimeout(this.timer);
    clearInterval(this.keeper);
    removeEventListener("pagehide", this.leaving);
    removeEventListener("online", this.online);
    try {
      localStorage.removeItem(this.key);
    } catch {
      // As above.
    }
  }

  say(text, alarm = false) {
    const saved = document.querySelector("[data-saved]");
    if (!saved) return;
    saved.textContent = text;
    saved.toggleAttribute("data-alarm", alarm);
    // Only trouble is read out.
    saved.setAttribute("aria-live", alarm ? "assertive" : "off");
  }
}
