// watch: watches on the npm client etcd3. Exits 0 when every event was right.
//   watch.js a,b,c               put, delete, history, cancel
//   watch.js a,b,c -through 60   through/000 .. 059, written by someone else, each once, in order
'use strict';
const assert = require('assert');
const { Etcd3 } = require('etcd3');
const dial = require('./dial.js');

// The next `count` events of a watcher.
function events(watcher, count) {
  return new Promise((resolve, reject) => {
    const got = [];
    watcher.on('data', (res) => {
      for (const e of res.events) got.push(e);
      if (got.length >= count) resolve(got);
    });
    watcher.on('end', () => reject(new Error('the watch ended')));
  });
}

async function through(client, count) {
  const watcher = await client.watch().prefix('through/').startRevision('1').create();
  const seen = events(watcher, count);
  console.log('WATCHING');
  const keys = (await seen).map((e) => e.kv.key.toString());
  assert.deepStrictEqual(keys, keys.map((_, i) => `through/${String(i).padStart(3, '0')}`));
  await watcher.cancel();
}

async function plain(client) {
  const ns = client.namespace('nodewatch/');
  await ns.delete().all();
  const first = (await ns.put('a').value('0')).header.revision;
  const watcher = await ns.watch().key('a').withPreviousKV().create();
  const seen = events(watcher, 3);
  await ns.put('a').value('1');
  await ns.put('a').value('2');
  await ns.delete().key('a');
  const got = await seen;
  assert.deepStrictEqual(got.map((e) => e.type), ['Put', 'Put', 'Delete']);
  assert.deepStrictEqual(got.map((e) => e.prev_kv.value.toString()), ['0', '1', '2']);
  await watcher.cancel();
  const old = await ns.watch().prefix('').startRevision(first).create();
  const all = await events(old, 4);
  assert.deepStrictEqual(all.map((e) => e.kv.value.toString()), ['0', '1', '2', '']);
  await old.cancel();
  // the client has the two filters crossed: ignoring deletes leaves out the puts
  const only = await ns.watch().prefix('').ignore('delete').startRevision(first).create();
  assert.strictEqual((await events(only, 1))[0].type, 'Delete');
  await only.cancel();
}

async function main() {
  const client = new Etcd3(dial(process.argv[2]));
  if (process.argv[3] === '-through') await through(client, Number(process.argv[4]));
  else await plain(client);
  client.close();
  console.log('PASS');
}

main().catch((e) => {
  console.error('FAIL:', e);
  process.exit(1);
});
