// kvtxn: KV and transactions on the npm client etcd3. Exits 0 when all answers are right.
'use strict';
const assert = require('assert');
const { Etcd3 } = require('etcd3');
const dial = require('./dial.js');

async function main() {
  const prefix = process.argv[3] || 'node/';
  const client = new Etcd3(dial(process.argv[2]));
  const ns = client.namespace(prefix);

  await ns.delete().all();
  await ns.put('a').value('1');
  assert.strictEqual(await ns.get('a').string(), '1');
  await ns.put('a').value('2');
  const meta = await ns.get('a').exec();
  assert.strictEqual(meta.kvs[0].version, '2');
  for (let i = 0; i < 20; i++) await ns.put(`p/${String(i).padStart(2, '0')}`).value(String(i));
  assert.strictEqual(Object.keys(await ns.getAll().prefix('p/').strings()).length, 20);
  assert.strictEqual((await ns.getAll().prefix('p/').limit(3).keys()).length, 3);
  const sorted = await ns.getAll().prefix('p/').sort('Key', 'Descend').limit(1).keys();
  assert.deepStrictEqual(sorted, ['p/19']);
  const won = await ns.if('a', 'Value', '==', '2')
    .then(ns.put('a').value('3'), ns.get('a'))
    .else(ns.put('a').value('lost'))
    .commit();
  assert.strictEqual(won.succeeded, true);
  const lost = await ns.if('a', 'Version', '>', 1000).then(ns.put('a').value('no')).else(ns.get('a')).commit();
  assert.strictEqual(lost.succeeded, false);
  assert.strictEqual(lost.responses[0].response_range.kvs[0].value.toString(), '3');
  assert.strictEqual(await ns.get('missing').string(), null);
  const deleted = await ns.delete().prefix('p/');
  assert.strictEqual(deleted.deleted, '20');
  await assert.rejects(client.put('').value('x'), /key is not provided/);
  await ns.delete().all();
  client.close();
  console.log('PASS');
}

main().catch((e) => {
  console.error('FAIL:', e);
  process.exit(1);
});
