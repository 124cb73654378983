// The official conformance suite of Durable Streams at one node. The test process of Python starts it.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.DURABLE_STREAMS_URL,
  longPollTimeoutMs: 2_000,
  subscriptions: true,
})
