// A consumer of nsqjs that knows nothing but an nsqlookupd's HTTP address finds a
// topic on two nsqds that stand alone, goes on with one when the other stops, and
// finds that one again when it is back.
// Usage: node follow.js FOLDER POLL-SECONDS, with nsqd and nsqlookupd on PATH
'use strict'
const {spawn} = require('child_process')
const fs = require('fs')
const nsq = require('nsqjs')

const [folder, poll] = [process.argv[2], Number(process.argv[3])]
const patience = 65000 // ms for each step: what the stock intervals need
const lookups = {tcp: '127.0.0.1:4160', http: '127.0.0.1:4161'}
const children = []

// run starts a program; the promise of its end is its property ended.
function run(name, args) {
  const child = spawn(name, args, {stdio: ['ignore', 'ignore', 'inherit']})
  child.ended = new Promise((resolve) => child.on('exit', resolve))
  child.on('error', (err) => fail(err))
  children.push(child)
  return child
}

function fail(err) {
  console.error(`follow.js: ${err.stack || err}`)
  children.forEach((c) => c.kill('SIGKILL'))
  process.exit(1)
}

// until waits for a condition, and tells how many seconds that took.
async function until(what, is) {
  const began = Date.now()
  while (!(await is())) {
    if (Date.now() - began > patience) throw new Error(`in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return (Date.now() - began) / 1000
}

async function ask(method, port, path, body) {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {method, body})
  return {ok: response.ok, text: await response.text()}
}

const up = (port) => until(`port ${port}`, () => ask('GET', port, '/ping').then((r) => r.ok, () => false))

async function node(port) {
  const path = `${folder}/${port}`
  fs.mkdirSync(path, {recursive: true})
  const child = run('nsqd', [`-tcp-address=127.0.0.1:${port}`, `-http-address=127.0.0.1:${port + 1}`, '-broadcast-address=127.0.0.1',
    `-data-path=${path}`, `-lookupd-tcp-address=${lookups.tcp}`, '-log-level=error'])
  await up(port + 1)
  return child
}

async function main() {
  run('nsqlookupd', [`-tcp-address=${lookups.tcp}`, `-http-address=${lookups.http}`, '-broadcast-address=127.0.0.1', '-log-level=error'])
  await up(4161)
  const [a, b] = [4250, 4350]
  await node(a)
  let second = await node(b)
  for (const port of [a, b]) await ask('POST', port + 1, '/topic/create?topic=orders')
  const found = (n) => until(`${n} producers`, async () => {
    const answer = await ask('GET', 4161, '/lookup?topic=orders')
    return answer.ok && JSON.parse(answer.text).producers.length === n
  })
  await found(2)

  const got = new Set()
  const options = {lookupdHTTPAddresses: [lookups.http], maxInFlight: 10}
  if (poll) options.lookupdPollInterval = poll
  const reader = new nsq.Reader('orders', 'audit', options)
  reader.on('message', (m) => { got.add(m.body.toString()); m.finish() })
  reader.on('error', () => {}) // that of the node which stops
  let serial = 0
  const arrives = async (what, port) => {
    const body = `${what} ${++serial}`
    const answer = await ask('POST', port + 1, '/pub?topic=orders', body)
    if (!answer.ok) throw new Error(`publish: ${answer.text}`)
    const took = await until(what, () => got.has(body))
    console.log(`${what}: ${took.toFixed(1)} s`)
  }
  reader.connect()
  await arrives('the first', a)
  await arrives('the second', b)
  second.kill('SIGTERM')
  await second.ended
  await found(1)
  await arrives('the first, without the second', a)
  second = await node(b)
  await arrives('the second, back again', b)
  await arrives('the first, still', a)
  reader.close()
  children.forEach((c) => c.kill('SIGTERM'))
  await Promise.all(children.map((c) => c.ended))
  console.log('note: nsqjs follows two nodes by our lookup')
}

main().then(() => process.exit(0), fail)
