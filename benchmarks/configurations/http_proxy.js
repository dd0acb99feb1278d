// node http_proxy.js MODULE PORT HOST:PORT...: round robin over http-proxy or http-proxy-3, with keep-alive to the backends.
const http = require("http");
const [module_, port, ...servers] = process.argv.slice(2);
const { createProxyServer } = require(module_);
const proxy = createProxyServer({ agent: new http.Agent({ keepAlive: true, maxSockets: Infinity }) });
let turn = 0;
const next = () => ({ target: "http://" + servers[turn++ % servers.length] });
proxy.on("error", (error, request, response) => response.destroy());
const server = http.createServer((request, response) => proxy.web(request, response, next()));
server.on("upgrade", (request, socket, head) => proxy.ws(request, socket, head, next()));
server.requestTimeout = 0;
server.listen(Number(port), "127.0.0.1", 4096);
