// lease: leases on the npm client etcd3. Exits 0 when all answers are right.
//
// One lease is kept alive for the given seconds while faults may happen around it: its key must
// never be missing. Another one is let go: its key must not vanish before its TTL, and must then.
'use strict';
const assert = require('assert');
const { Etcd3 } = require('etcd3');
const dial = require('./dial.js');

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Repeats f while the cluster has no leader; a failure after `until` is none.
async function again(f, until) {
  const end = Date.now() + 40000;
  for (;;) {
    try {
      return await f();
    } catch (e) {
      if (Date.now() >= until) return null;
      if (Date.now() > end) throw e;
      await pause(50);
    }
  }
}

async function main() {
  const seconds = Number(process.argv[3] || '3');
  const client = new Etcd3(dial(process.argv[2]));
  const ns = client.namespace('node-lease/');
  const present = async (key) => (await again(() => ns.get(key).string())) !== null;
  const end = Date.now() + seconds * 1000;
  let lost = null;
  let beats = 0;

  const granted = (ttl, options) => again(async () => {
    const lease = ns.lease(ttl, options);
    await lease.grant();
    return lease;
  });

  const kept = await granted(10);
  kept.on('lost', (e) => { lost = e; });
  kept.on('keepaliveSucceeded', () => { beats += 1; });
  await again(() => kept.put('kept').value('x'));
  console.log('READY');

  const other = await granted(600, { autoKeepAlive: false });
  const id = await other.grant();
  await again(() => other.put('other').value('x'));
  const info = await again(() => client.leaseClient.leaseTimeToLive({ ID: id, keys: true }));
  assert.strictEqual(info.grantedTTL, '600');
  assert.deepStrictEqual(info.keys.map(String), ['node-lease/other']);
  assert.strictEqual((await again(() => other.keepaliveOnce())).TTL, '600');
  await again(() => other.revoke());
  assert.strictEqual(await present('other'), false);
  assert.strictEqual((await again(() => client.leaseClient.leaseTimeToLive({ ID: id }))).TTL, '-1');

  do {
    const asked = Date.now();
    const short = await granted(2, { autoKeepAlive: false });
    await again(() => short.put('short').value('x'), asked + 2000);
    while (await present('short')) {
      assert(Date.now() < asked + 60000, 'the lease does not end');
      assert(await present('kept'), 'the key of the kept lease is gone');
      await pause(20);
    }
    assert(Date.now() - asked >= 2000, `gone after ${Date.now() - asked} ms`);
  } while (Date.now() < end);
  assert.strictEqual(lost, null);
  assert(beats > 0, 'no answer to a keepalive');
  assert(await present('kept'), 'the key of the kept lease is gone');
  await again(() => kept.revoke());
  client.close();
  console.log('PASS');
}

main().catch((e) => {
  console.error('FAIL:', e);
  process.exit(1);
});
