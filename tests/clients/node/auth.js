// auth: a user with a password through npm etcd3: what it may, what it may not, and a token that
// expires meanwhile. argv: endpoints, user, password, seconds to stay idle.
'use strict';
const { Etcd3 } = require('etcd3');
const dial = require('./dial.js');

const [endpoints, username, password, idle] = process.argv.slice(2);

async function denied(what, promise) {
  let text = 'done';
  try {
    await promise;
  } catch (e) {
    text = e.message;
  }
  if (!/permission denied/i.test(text)) throw new Error(`${what}: ${text}`);
}

async function main() {
  const client = new Etcd3({ ...dial(endpoints), auth: { username, password } });
  await client.put('/app/node').value('1');
  if ((await client.get('/app/node').string()) !== '1') throw new Error('get');
  await denied('put', client.put('/other').value('1'));
  await denied('get', client.get('/other').string());
  const watcher = await client.watch().prefix('/app/').create();
  const seen = new Promise((resolve) => watcher.on('put', (kv) => resolve(kv.value.toString())));
  await client.put('/app/node').value('2');
  if ((await seen) !== '2') throw new Error('watch');
  await watcher.cancel();
  await new Promise((resolve) => setTimeout(resolve, Number(idle) * 1000));
  await client.put('/app/node').value('3'); // a new token when the old one is gone
  client.close();
  const wrong = new Etcd3({ ...dial(endpoints), auth: { username, password: 'wrong' } });
  let text = 'done';
  try {
    await wrong.get('/app/node').string();
  } catch (e) {
    text = e.message;
  }
  if (!/authentication failed/.test(text)) throw new Error(`wrong password: ${text}`);
  wrong.close();
  console.log('OK');
}

main().then(() => process.exit(0), (e) => {
  console.error('FAIL:', e);
  process.exit(1);
});
