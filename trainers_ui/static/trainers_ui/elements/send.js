/* POST with the page's CSRF token; every answer is JSON or empty. */

export class Refused extends Error {
  /** The server understood and said no; `answer` is its JSON, `status` its status. */
  constructor(status, answer) {
    super(answer.error || "The site could not do that.");
    this.status = status;
    this.answer = answer;
  }
}

export class Away extends Error {
  /** Nobody answered, or not with an answer of this site. */
  constructor() {
    super("No connection to the site.");
  }
}

// A refusal that is no JSON comes from before our views: the page's token is not taken any more.
const TOO_OLD = { error: "This page is too old to send anything: reload it. What you typed is kept.", code: "too_old" };

export const token = () => document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";

/** The answer, {} where it is empty. Throws Refused or Away. */
export async function post(url, fields = {}, { keepalive = false } = {}) {
  const body = fields instanceof FormData ? fields : new URLSearchParams(fields);
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      body,
      keepalive,
      headers: { Accept: "application/json", "X-CSRFToken": token() },
    });
  } catch {
    throw new Away();
  }
  if (response.status === 204) return {};
  const answer = await response.json().catch(() => null);
  if (answer === null) throw response.status >= 400 && response.status < 500 ? new Refused(response.status, TOO_OLD) : new Away();
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

/** A last word while the page goes away. */
export function beacon(url, fields = {}) {
  navigator.sendBeacon(url, new URLSearchParams({ ...fields, csrfmiddlewaretoken: token() }));
}
