// A consumer of nsqjs that prints the body of each message on a line of its own.
// Usage: node reader.js TOPIC CHANNEL nsqd|lookup ADDRESS[,ADDRESS ...], where
// nsqjs can be found
'use strict'
const nsq = require('nsqjs')

const [topic, channel, by, addresses] = process.argv.slice(2)
const list = addresses.split(',')
const reader = new nsq.Reader(topic, channel, by === 'lookup' ? {lookupdHTTPAddresses: list, maxInFlight: 10} : {nsqdTCPAddresses: list, maxInFlight: 10})
reader.on('message', (message) => {
  process.stdout.write(`${message.body.toString()}\n`)
  message.finish()
})
reader.on('error', (err) => process.stderr.write(`${err}\n`)) // of the node that is killed
reader.connect()
