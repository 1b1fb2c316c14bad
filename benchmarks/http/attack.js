// What a page can send without asking anybody: attack(way, requests) sends each request in one way.
// A request has an address, a method, a body, and messages if it opens a socket. EVIL in them becomes a text
// that no other request has, with the "=" at which a form cuts a body; NUMBER becomes a number.

const PATIENCE_MS = 15000;
const AT_ONCE = 6;
let made = 0;

const settled = (promise) =>
  Promise.race([promise.catch(() => null), new Promise((done) => setTimeout(done, PATIENCE_MS))]);

const loaded = (element) =>
  new Promise((done) => {
    element.onload = element.onerror = done;
  });

const element = (name, attributes) => Object.assign(document.createElement(name), attributes);

const form = (enctype) => async (request) => {
  const frame = element("iframe", { name: `frame${made++}` });
  document.documentElement.append(frame);
  const cut = request.body.indexOf("=");
  const sent = element("form", { method: "POST", action: request.address, enctype, target: frame.name });
  sent.append(
    element("textarea", { name: request.body.slice(0, cut), value: request.body.slice(cut + 1) }),
  );
  document.documentElement.append(sent);
  const done = loaded(frame);
  sent.submit();
  await settled(done);
  frame.remove();
  sent.remove();
};

const post = (type) => (request) =>
  fetch(request.address, {
    method: "POST",
    mode: "no-cors",
    body: type ? request.body : new Blob([request.body]),
    headers: type ? { "content-type": type } : {},
  });

const embedded = (name, source) => async (request) => {
  const one = element(name, {});
  const done = loaded(one);
  one[source] = request.address;
  if (source === "href") one.rel = "stylesheet";
  document.documentElement.append(one);
  await settled(done);
  one.remove();
};

const socket = (request) =>
  new Promise((done) => {
    const one = new WebSocket(request.address.replace("http", "ws"));
    one.onopen = () => {
      for (const message of request.messages) one.send(message);
      setTimeout(() => one.close(), 500);
    };
    one.onclose = one.onerror = done;
  });

const asIs = (request) =>
  fetch(request.address, {
    method: request.method,
    body: request.method === "GET" ? undefined : request.body,
    headers: { "content-type": "application/json" },
  });

const WAYS = {
  "form as text": form("text/plain"),
  "form by name": form("application/x-www-form-urlencoded"),
  "form in parts": form("multipart/form-data"),
  "fetch as text": post("text/plain"),
  "fetch as form": post("application/x-www-form-urlencoded"),
  "fetch as parts": post("multipart/form-data"),
  "fetch without a type": post(null),
  beacon: async (request) => navigator.sendBeacon(request.address, request.body),
  "fetch GET": (request) => fetch(request.address, { mode: "no-cors" }),
  image: embedded("img", "src"),
  script: embedded("script", "src"),
  "style sheet": embedded("link", "href"),
  frame: embedded("iframe", "src"),
  socket,
  "fetch as it is": asIs,
};

async function attack(way, requests) {
  const waiting = [...requests];
  const one = async () => {
    while (waiting.length) {
      const request = waiting.shift();
      const number = `${Date.now()}${made++}`;
      const own = (text) => text.replaceAll("EVIL", `evil=${number}`).replaceAll("NUMBER", number);
      const messages = request.messages.map(own);
      await settled(WAYS[way]({ ...request, body: own(request.body), messages }));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  return requests.length;
}
