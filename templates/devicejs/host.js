// SPDX-License-Identifier: Apache-2.0
// Runs the members of a composite as modules of one Node process (Node >= 12, no packages).
//
// stdin: {"moduleconfigs": {"<job>": {<job payload>}}, "process_config": "<text>",
//         "maestro_user_socket_path": "<path>"}, up to EOF. The module contract is in README.md.
'use strict';

const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const { pathToFileURL } = require('url');

const OK_STRING = '!!OK!!';
const FETCH_TIMEOUT_MS = 10000;

const members = []; // {name, payload, dir, realDir, state: 'starting' | 'up' | 'failed', stoppable}
let stopping = false;

function say(text) {
  process.stderr.write(`devicejs host: ${text}\n`);
}

function describe(error) {
  return (error && (error.stack || error.message)) || String(error);
}

// Comments become blanks, so that positions in syntax errors stay true.
function withoutComments(text) {
  return text.replace(/"[^"\\]*(?:\\[\s\S][^"\\]*)*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (found) =>
    found[0] === '"' ? found : found.replace(/[^\n]/g, ' ')
  );
}

function homeDirectory() {
  try {
    return os.homedir();
  } catch (error) {
    return '/'; // a uid without a passwd entry
  }
}

// `${home}`, `${thisdir}` (the module's directory) and `${NAME}` of the environment; others stay as written.
function substitute(text, dir, quote) {
  return text.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, (whole, name) => {
    const value = name === 'home' ? homeDirectory() : name === 'thisdir' ? dir : process.env[name];
    return value === undefined ? whole : quote(value);
  });
}

// JSON with comments gives its value; other text is handed over as it is.
function parseConfig(text, dir) {
  const clean = withoutComments(substitute(text, dir, (value) => JSON.stringify(value).slice(1, -1)));
  try {
    return JSON.parse(clean);
  } catch (error) {
    if (/^\s*[{[]/.test(clean)) throw new Error(`its config is not JSON: ${error.message}`);
    return substitute(text, dir, (value) => value);
  }
}

// Resolves with the text of a job's stored config, or null when there is none.
function fetchConfig(socketPath, job, name) {
  return new Promise((resolve, reject) => {
    if (!socketPath) {
      resolve(null);
      return;
    }
    const request = http.get(
      {
        socketPath,
        path: `/jobConfig/${encodeURIComponent(job)}/${encodeURIComponent(name)}`,
        headers: { Host: '127.0.0.1', Accept: 'application/json' },
        timeout: FETCH_TIMEOUT_MS,
      },
      (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('error', reject);
        response.on('aborted', () => reject(new Error('the answer ended early')));
        response.on('end', () => {
          try {
            if (response.statusCode === 204 || response.statusCode === 404) {
              resolve(null);
              return;
            }
            if (response.statusCode !== 200) throw new Error(`the daemon answered ${response.statusCode}`);
            const config = JSON.parse(Buffer.concat(chunks).toString()).configs[0];
            resolve(config.encoding === 'base64' ? Buffer.from(config.data, 'base64').toString() : config.data);
          } catch (error) {
            reject(error);
          }
        });
      }
    );
    request.on('timeout', () => request.destroy(new Error(`no answer within ${FETCH_TIMEOUT_MS} ms`)));
    request.on('error', reject);
  });
}

// Inline data first, then what the daemon has stored, then the module's own config.json.
async function configOf(member, socketPath) {
  const { config, config_name: configName } = member.payload;
  if (config && typeof config === 'object') return config;
  if (config) return parseConfig(config, member.dir);
  try {
    const text = await fetchConfig(socketPath, member.name, configName || 'default');
    if (text) return parseConfig(text, member.dir);
  } catch (error) {
    say(`cannot fetch the config of module ${member.name}: ${error.message}`);
  }
  const own = path.join(member.dir, 'config.json');
  return fs.existsSync(own) ? parseConfig(fs.readFileSync(own, 'utf8'), member.dir) : null;
}

async function load(named) {
  // With the slash it can only be the directory, never a file `<named>.js` or `<named>.json` beside it.
  const target = fs.existsSync(named) && fs.statSync(named).isDirectory() ? named + path.sep : named;
  let exported;
  try {
    exported = require(target);
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM') throw error;
    exported = await import(pathToFileURL(require.resolve(target)).href);
  }
  exported = await exported;
  // Transpiled and real ES modules keep the thing itself under `default`.
  return exported && exported.default && typeof exported.start !== 'function' ? exported.default : exported;
}

async function startMember(member, shared) {
  const target = member.payload.exec_cmd;
  if (!target) throw new Error('it has no exec_cmd naming its directory');
  const absolute = path.resolve(target);
  if (!fs.existsSync(absolute)) throw new Error(`${absolute} does not exist`);
  member.dir = fs.statSync(absolute).isDirectory() ? absolute : path.dirname(absolute);
  member.realDir = fs.realpathSync(member.dir);
  const config = await configOf(member, shared.socket);
  const context = {
    name: member.name,
    dir: member.dir,
    socket: shared.socket,
    processConfig: shared.processConfig,
    fetchConfig: (name) =>
      fetchConfig(shared.socket, member.name, name || member.payload.config_name || 'default').then((text) =>
        text === null ? null : parseConfig(text, member.dir)
      ),
  };
  const exported = await load(absolute);
  let result;
  if (typeof exported === 'function') result = await exported(config, context);
  else if (exported && typeof exported.start === 'function') result = await exported.start(config, context);
  member.stoppable = [result, exported].find((thing) => thing && typeof thing.stop === 'function');
}

async function bringUp(member, shared) {
  try {
    await startMember(member, shared);
    member.state = 'up';
  } catch (error) {
    member.state = 'failed';
    say(`cannot load module ${member.name}: ${describe(error)}`);
  }
}

async function stop(signal) {
  if (stopping) return;
  stopping = true;
  const late = members.filter((member) => member.state === 'starting').map((member) => member.name);
  if (late.length) say(`${signal} came while still starting: ${late.join(', ')}`);
  await Promise.all(
    members.map(async (member) => {
      try {
        if (member.stoppable) await member.stoppable.stop();
      } catch (error) {
        say(`cannot stop module ${member.name}: ${describe(error)}`);
      }
    })
  );
  process.exit(0);
}

// The member whose directory shows up first in the stack; the deepest directory where they nest.
function culprit(error) {
  const stack = String((error && error.stack) || '');
  for (const line of stack.split('\n')) {
    const inside = members.filter((member) => member.realDir && line.includes(member.realDir + path.sep));
    if (inside.length) return inside.reduce((a, b) => (b.realDir.length > a.realDir.length ? b : a)).name;
  }
  return '';
}

function die(error) {
  const name = culprit(error);
  say(`${name ? `module ${name}` : 'a module'} failed: ${describe(error)}`);
  process.exit(1);
}

function parseProcessConfig(value) {
  if (typeof value !== 'string') return value === undefined ? null : value;
  try {
    return JSON.parse(withoutComments(value));
  } catch (error) {
    return value;
  }
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  let composite;
  try {
    composite = JSON.parse(Buffer.concat(chunks).toString());
    for (const [name, payload] of Object.entries(composite.moduleconfigs)) {
      members.push({ name, payload, dir: '', realDir: '', state: 'starting', stoppable: undefined });
    }
  } catch (error) {
    say(`cannot read the list of modules from stdin: ${error.message}`);
    process.exit(1);
  }
  const shared = {
    socket: composite.maestro_user_socket_path || process.env.MAESTRO_SOCKET || '',
    processConfig: parseProcessConfig(composite.process_config),
  };
  setInterval(() => {}, 0x7fffffff); // the process lives on even when no module holds a handle
  await Promise.all(members.map((member) => bringUp(member, shared)));
  if (stopping) return;
  const failed = members.filter((member) => member.state === 'failed').map((member) => member.name);
  if (failed.length === members.length) {
    say('no module could be loaded');
    process.exit(1);
  }
  if (failed.length) say(`running without: ${failed.join(', ')}`);
  process.stdout.write(`${OK_STRING}\n`);
}

process.on('uncaughtException', die);
process.on('unhandledRejection', die);
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
main();
