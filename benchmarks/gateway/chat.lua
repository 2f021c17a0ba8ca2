-- A realistic chat request of about a hundred tokens, and a report that a program can read.
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
local body = [[{"model":"auto","temperature":0.2,"max_tokens":256,"messages":[{"role":"system","content":"You are the travel desk of a small railway. Answer in at most two sentences, in plain words, and name the platform when you know it."},{"role":"user","content":"I am on the 9 o'clock train from Aarhus, which needs two hours and a half. My friend leaves Copenhagen at a quarter past nine and needs three hours and ten minutes. Who is there first, how long does the other one wait, and can we still catch the ferry that leaves at 12:45 if walking to the harbour takes %d minutes and the fare is %d crowns?"}]}
]]

-- No two requests are the same, so that nothing remembered from the last one can help.
local count = 0
function request()
  count = count + 1
  return wrk.format(nil, nil, nil, body:format(count % 60 + 5, count))
end

function done(summary, latency, requests)
  io.write(string.format(
    '\nREPORT {"requests":%d,"duration_us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50_us":%d,"p95_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.status, summary.errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
