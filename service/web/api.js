// What the page asks of the service: its models, and one solve as a stream of events.

/** A refusal: an RFC 9457 document, or what stands for one where none came. */
export class Problem extends Error {
  constructor(document) {
    super(document.detail);
    this.title = document.title;
    this.status = document.status;
    this.errors = document.errors ?? [];
    this.requestId = document.request_id;
  }
}

/** The models that are served. */
export async function models(key) {
  const response = await ask("models", { headers: headers(key) });
  return (await response.json()).models;
}

/** Events `[name, data]` of a solve until its `result`; a Problem where it fails. */
export async function* solve(body, key, signal) {
  const response = await ask("solve/stream", {
    method: "POST",
    headers: { ...headers(key), "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const [name, data] of events(response.body)) {
    signal.throwIfAborted();
    if (name === "error") throw new Problem(data);
    yield [name, data];
    if (name === "result") return;
  }
  throw broken("The stream ended before the answer came.");
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw broken("The service does not answer.");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  try {
    return new Problem(await response.json());
  } catch {
    return broken(`The service answered with status ${response.status}.`);
  }
}

function broken(detail) {
  return new Problem({ title: "No answer", detail });
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : broken("The connection was lost.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const fields = Object.fromEntries(
    block.split("\n").filter((line) => !line.startsWith(":")).map((line) => {
      const [, name, value] = /^([^:]*): ?(.*)$/.exec(line);
      return [name, value];
    }),
  );
  return fields.data && [fields.event, JSON.parse(fields.data)];
}
