// A browser starts no worker for a page that was opened from the file system. There, a hidden frame
// runs the worker's script, so that the search works without a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...urls) =>
        Promise.all(urls.map((each) => new Promise((resolve) => load(each, resolve))));
      const load = (address, done) => {
        const script = inner.document.createElement("script");
        script.src = new URL(address, document.baseURI);
        script.onload = done;
        inner.document.body.append(script);
      };
      this.ready = new Promise((resolve) => load(url, resolve));
      this.inner = inner;
    }
    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new this.inner.MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
