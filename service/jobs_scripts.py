"""What the store does for jobs, each in one step.

``eqr:job:ID`` is a hash: state, total, done, fence, takes (since an item last ended), created,
ended, expires, error, owner, request_id, requests (until the end). ``eqr:job:ID:items`` maps an
item's index to its end. Three sorted sets hold the ids of live jobs: ``eqr:jobs:queue`` by
submission, ``eqr:jobs:leases`` by the lease's end, ``eqr:jobs:ends`` by the time they expire.
"""

from __future__ import annotations

from service.store import Script

MAX_TAKES = 20
"""A job fails when so many workers in a row died with it before any item ended."""

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

_END = """
local function finish(job, items, queue, leases, ends, id, state, kept)
  redis.call('HSET', job, 'state', state, 'ended', now, 'expires', now + kept)
  redis.call('HINCRBY', job, 'fence', 1)
  redis.call('HDEL', job, 'requests')
  redis.call('ZREM', queue, id)
  redis.call('ZREM', leases, id)
  redis.call('ZREM', ends, id)
  redis.call('PEXPIRE', job, kept)
  redis.call('PEXPIRE', items, kept)
end
"""

SUBMIT = Script(
    _NOW
    + """
local job, queue, ends = KEYS[1], KEYS[3], KEYS[4]
local id, total, requests, owner, request_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local within, most = tonumber(ARGV[6]), tonumber(ARGV[7])
if redis.call('EXISTS', job) == 1 then return 'known' end
if redis.call('ZCARD', ends) >= most then return 'full' end
redis.call('HSET', job, 'state', 'queued', 'total', total, 'done', 0, 'fence', 0, 'takes', 0,
  'created', now, 'owner', owner, 'request_id', request_id, 'requests', requests)
redis.call('ZADD', queue, now, id)
redis.call('ZADD', ends, now + within, id)
return 'stored'
"""
)

READ = Script("""
local job, items, owner = KEYS[1], KEYS[2], ARGV[1]
if redis.call('HGET', job, 'owner') ~= owner then return {} end
local fields = redis.call('HMGET', job, 'state', 'total', 'done', 'created', 'ended', 'expires',
  'error')
if not fields[5] then return {fields, {}} end
return {fields, redis.call('HGETALL', items)}
""")

CANCEL = Script(
    _NOW
    + _END
    + """
local job, items, queue, leases, ends = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, owner, kept = ARGV[1], ARGV[2], tonumber(ARGV[3])
local known = redis.call('HMGET', job, 'owner', 'ended')
if known[1] == owner and not known[2] then
  finish(job, items, queue, leases, ends, id, 'cancelled', kept)
end
return 1
"""
)

TAKE = Script(
    _NOW
    + _END
    + f"local most = {MAX_TAKES}\n"
    + """
local queue, leases, ends = KEYS[1], KEYS[2], KEYS[3]
local prefix, lease, kept = ARGV[1] .. 'job:', tonumber(ARGV[2]), tonumber(ARGV[3])

for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)) do
  local job = prefix .. id
  redis.call('HSET', job, 'error', 'it took longer than a job may')
  finish(job, job .. ':items', queue, leases, ends, id, 'expired', kept)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)) do
  local job = prefix .. id
  local known = redis.call('HMGET', job, 'takes', 'created')
  if tonumber(known[1] or 0) >= most then
    redis.call('HSET', job, 'error', most .. ' workers in a row died with it')
    finish(job, job .. ':items', queue, leases, ends, id, 'failed', kept)
  else
    redis.call('ZREM', leases, id)
    redis.call('HINCRBY', job, 'fence', 1)
    redis.call('HSET', job, 'state', 'queued')
    redis.call('ZADD', queue, known[2] or now, id)
  end
end

while true do
  local id = redis.call('ZRANGE', queue, 0, 0)[1]
  if not id then return {} end
  redis.call('ZREM', queue, id)
  local job = prefix .. id
  local known = redis.call('HMGET', job, 'requests', 'owner', 'request_id')
  if known[1] then
    local fence = redis.call('HINCRBY', job, 'fence', 1)
    redis.call('HINCRBY', job, 'takes', 1)
    redis.call('HSET', job, 'state', 'running')
    redis.call('ZADD', leases, now + lease, id)
    local taken = {id, fence, known[1], known[2], known[3]}
    for _, index in ipairs(redis.call('HKEYS', job .. ':items')) do
      taken[#taken + 1] = index
    end
    return taken
  end
  redis.call('ZREM', ends, id)
  redis.call('DEL', job)
end
"""
)

RENEW = Script(
    _NOW
    + """
local job, leases = KEYS[1], KEYS[3]
local id, fence, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('HGET', job, 'fence') ~= fence then return 0 end
redis.call('ZADD', leases, 'XX', now + lease, id)
return 1
"""
)

SAVE = Script(
    _NOW
    + _END
    + """
local job, items, queue, leases, ends = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, fence, index, item, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('HGET', job, 'fence') ~= fence then return 0 end
if redis.call('HSETNX', items, index, item) == 1 then
  redis.call('HINCRBY', job, 'done', 1)
  redis.call('HSET', job, 'takes', 0)
end
local counts = redis.call('HMGET', job, 'done', 'total')
if tonumber(counts[1]) >= tonumber(counts[2]) then
  finish(job, items, queue, leases, ends, id, 'done', kept)
end
return 1
"""
)

RELEASE = Script("""
local job, queue, leases = KEYS[1], KEYS[3], KEYS[4]
local id, fence = ARGV[1], ARGV[2]
if redis.call('HGET', job, 'fence') ~= fence then return 0 end
redis.call('ZREM', leases, id)
redis.call('HINCRBY', job, 'fence', 1)
redis.call('HSET', job, 'state', 'queued', 'takes', 0)
redis.call('ZADD', queue, redis.call('HGET', job, 'created'), id)
return 1
""")

COUNT = Script("return {redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])}")
