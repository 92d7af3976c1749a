// locks: the classes Lock and Election of the npm client etcd3. Exits 0 when all answers are right.
'use strict';
const assert = require('assert');
const { once } = require('events');
const { Etcd3, EtcdLockFailedError, NotCampaigningError } = require('etcd3');
const dial = require('./dial.js');

async function locks(client) {
  const ns = client.namespace('node-lock/');
  const one = await ns.lock('job').ttl(60).acquire();
  const token = (await ns.get('job').exec()).kvs[0].create_revision;
  await assert.rejects(ns.lock('job').acquire(), EtcdLockFailedError);
  const write = (rev) => ns.if('job', 'Create', '==', rev).then(ns.put('data').value(rev)).commit();
  assert.strictEqual((await write(token)).succeeded, true);
  await one.release();
  assert.strictEqual(await ns.get('job').string(), null);
  // several at once: one works at a time, in whatever order
  let inside = 0;
  let done = 0;
  const worker = async () => {
    for (;;) {
      try {
        await ns.lock('job').do(async () => {
          inside += 1;
          assert.strictEqual(inside, 1, 'two holders');
          assert.strictEqual((await write(token)).succeeded, false, 'an old token was taken');
          inside -= 1;
          done += 1;
        });
        return;
      } catch (e) {
        if (!(e instanceof EtcdLockFailedError)) throw e;
      }
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  assert.strictEqual(done, 3);
}

async function elections(client) {
  const election = client.election('node-vote', 60);
  const observer = await election.observe();
  assert.strictEqual(observer.leader(), undefined);
  const seen = async (value) => {
    while (observer.leader() !== value) await once(observer, 'change');
  };
  const one = election.campaign('one');
  await one.wait();
  await seen('one');
  assert.strictEqual(await election.leader(), 'one');
  const two = election.campaign('two');
  let elected = false;
  const second = two.wait().then(() => { elected = true; });
  await once(two, '_isWaiting');
  await one.proclaim('one!');
  await seen('one!');
  assert.strictEqual(elected, false);
  await one.resign();
  await second;
  await seen('two');
  await assert.rejects(one.proclaim('late'), NotCampaigningError);
  await two.resign();
  await seen(undefined);
  assert.strictEqual(await election.leader(), undefined);
  await observer.cancel();
}

async function main() {
  const client = new Etcd3(dial(process.argv[2]));
  await locks(client);
  await elections(client);
  client.close();
  console.log('PASS');
}

main().then(() => process.exit(0), (e) => {
  console.error('FAIL:', e);
  process.exit(1);
});
