/* Seconds at work: those in which the page is looked at and something was done within the last minute. */

const IDLE_AFTER = 60;
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel", "scroll", "touchstart"];

export class ActiveTime {
  constructor(seconds = 0) {
    this.seconds = seconds;
    this.last = Date.now();
    this.seen = () => {
      this.last = Date.now();
    };
    for (const sign of SIGNS) addEventListener(sign, this.seen, { passive: true, capture: true });
    this.timer = setInterval(() => this.tick(), 1000);
  }

  tick(now = Date.now()) {
    if (!document.hidden && now - this.last < IDLE_AFTER * 1000) this.seconds += 1;
  }

  /** Whether somebody is at work now. */
  get working() {
    return !document.hidden && Date.now() - this.last < IDLE_AFTER * 1000;
  }

  stop() {
    clearInterval(this.timer);
    for (const sign of SIGNS) removeEventListener(sign, this.seen, { capture: true });
  }
}
