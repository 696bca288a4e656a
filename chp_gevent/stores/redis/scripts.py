"""The Lua scripts of the shared table; each runs atomically, in one round trip.

``KEYS``, all of one slot of a cluster (``{prefix}:…``):

1. ``meta``, a hash: ``format``, ``server`` (run id of the engine's process on which this state was
   accepted), ``epoch`` (``<number>-<random>``), ``seq`` (number of the last change), ``tag`` (its
   random tag), ``count`` (of routes), ``fence`` (nothing is confirmed before: Unix ms)
2. ``routes``, a hash: path to data, as the API shows them, without ``last_activity``
3. ``log``, a stream: id ``<seq>-0``; ``o`` (a, d), ``p`` path, ``d`` data, ``t`` tag, ``s`` server
4. ``activity``, a sorted set: path by Unix ms; exactly the paths of ``routes``
5. ``leases``, a sorted set: server by Unix ms of the engine's clock
6. ``acks``, a hash: server to the number of the last change that it has applied
7. ``adopt``, a hash: the election after a loss; absent in normal life

``ARGV``, of all scripts: 1 format, 2 run id, 3 epoch, 4 number and 5 tag of the last change that
is applied, 6 server. Numbers become text by ``string.format``: Lua's own way loses digits above
1e14.
"""

from __future__ import annotations

import hashlib
from typing import Final

FORMAT: Final = 1
"""Of the data. A newer one is not touched."""

_COMMON = r"""
local META, ROUTES, LOG, ACTIVITY, LEASES, ACKS, ADOPT =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local ME = ARGV[6]
local function text(n) return string.format('%.0f', n) end
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local function tag_of(seq)
  local found = redis.call('XRANGE', LOG, text(seq) .. '-0', text(seq) .. '-0')
  if not found[1] then return nil end
  local fields = found[1][2]
  for i = 1, #fields, 2 do if fields[i] == 't' then return fields[i + 1] end end
end
-- Whether what the caller believes of the shared table is true, and what the table says of itself.
local function check()
  local m = redis.call('HMGET', META, 'format', 'server', 'epoch', 'seq', 'tag', 'count', 'fence')
  if not m[3] then return 'NOSTATE' end
  if tonumber(m[1]) > tonumber(ARGV[1]) then return 'FORMAT', m end
  if m[2] ~= ARGV[2] then return 'NEWSERVER', m end
  if redis.call('HLEN', ROUTES) ~= tonumber(m[6]) then return 'DAMAGED', m end
  if m[3] ~= ARGV[3] then
    local mine, its = string.match(ARGV[3], '^(%d+)'), string.match(m[3], '^(%d+)')
    if tonumber(mine) > tonumber(its) then return 'OLDER', m end
    return 'EPOCH', m
  end
  local seq, applied = tonumber(m[4]), tonumber(ARGV[4])
  if applied > seq then return 'ROLLBACK', m end
  local tag = m[5]
  if applied < seq then tag = tag_of(applied) end
  if tag and tag ~= ARGV[5] then return 'ROLLBACK', m end
  -- Somebody misses something: all have to say what they know before anything changes.
  if redis.call('EXISTS', ADOPT) == 1 then return 'ADOPTING', m end
  return 'OK', m
end
local function live_servers(now)
  return redis.call('ZRANGEBYSCORE', LEASES, '(' .. text(now), '+inf')
end
-- Each server with a lease, and what it has applied; '?' before the fence.
local function acknowledged(now, fence)
  if fence and now < tonumber(fence) then return {'?'} end
  local answer, live = {}, live_servers(now)
  if #live > 0 then
    local acks = redis.call('HMGET', ACKS, unpack(live))
    for i, id in ipairs(live) do
      answer[#answer + 1] = id
      answer[#answer + 1] = acks[i] or '-1'
    end
  end
  return answer
end
"""

# 7 what (a: add, n: add unless it is there, d: delete), 8 path, 9 data, 10 activity, 11 tag,
# 12 length of the log, 13 deadline: a change whose sender has given up must not come later.
_CHANGE = r"""
local status, m = check()
if status ~= 'OK' then return {status} end
local now = now_ms()
if now > tonumber(ARGV[13]) then return {'LATE'} end
local what, path = ARGV[7], ARGV[8]
if what == 'd' then
  if redis.call('HDEL', ROUTES, path) == 0 then return {'ABSENT', m[4]} end
  redis.call('HINCRBY', META, 'count', -1)
  redis.call('ZREM', ACTIVITY, path)
else
  if what == 'n' and redis.call('HEXISTS', ROUTES, path) == 1 then return {'PRESENT', m[4]} end
  what = 'a'
  if redis.call('HSET', ROUTES, path, ARGV[9]) == 1 then redis.call('HINCRBY', META, 'count', 1) end
  redis.call('ZADD', ACTIVITY, ARGV[10], path)
end
local seq = text(tonumber(m[4]) + 1)
redis.call('HSET', META, 'seq', seq, 'tag', ARGV[11])
redis.call('XADD', LOG, 'MAXLEN', '~', ARGV[12], seq .. '-0',
  'o', what, 'p', path, 'd', ARGV[9], 't', ARGV[11], 's', ME)
return {'OK', seq, acknowledged(now, m[7])}
"""

# 7 lease in ms. KEYS 8 on: the streams of the servers whose changes have been applied since.
_BEAT = r"""
local status, m = check()
if status ~= 'OK' then return {status} end
local now = now_ms()
redis.call('ZADD', LEASES, text(now + tonumber(ARGV[7])), ME)
redis.call('HSET', ACKS, ME, ARGV[4])
for i = 8, #KEYS do
  redis.call('XADD', KEYS[i], 'MAXLEN', '~', 256, '*', 'i', ME, 's', ARGV[4])
  redis.call('PEXPIRE', KEYS[i], 60000)
end
-- Those that have been gone for an hour.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', text(now - 3600000))) do
  redis.call('ZREM', LEASES, id)
  redis.call('HDEL', ACKS, id)
end
return {'OK', m[4], text(now), redis.call('ZCARD', ACTIVITY), #live_servers(now)}
"""

_PENDING = r"""
local status, m = check()
if status ~= 'OK' then return {status} end
return {'OK', acknowledged(now_ms(), m[7])}
"""

_LEAVE = r"""
redis.call('ZREM', LEASES, ME)
redis.call('HDEL', ACKS, ME)
return {'OK'}
"""

# 7 on: path, ms, path, ms … Times only grow; paths without a route are dropped.
_ACTIVITY = r"""
local status = check()
if status ~= 'OK' then return {status} end
for i = 7, #ARGV, 2 do
  if redis.call('HEXISTS', ROUTES, ARGV[i]) == 1 then
    redis.call('ZADD', ACTIVITY, 'GT', ARGV[i + 1], ARGV[i])
  end
end
return {'OK'}
"""

# After a loss, or on another process of the engine's: who knows most provides the state.
# 7 number of the caller's epoch, 8 its routes, 9 how long to wait for others' offers, 10 random, 11
# how long whoever is chosen has to provide it, 12 how long nothing is confirmed; all in ms.
_ADOPT = r"""
local status, m = check()
if status == 'FORMAT' then return {'FORMAT'} end
if status == 'OK' or status == 'EPOCH' then return {'DONE'} end
local whole = m and redis.call('HLEN', ROUTES) == tonumber(m[6] or -1)
local now = now_ms()
if redis.call('HGET', ADOPT, 'run') ~= ARGV[2] then
  redis.call('DEL', ADOPT)
  redis.call('HSET', ADOPT, 'run', ARGV[2], 'deadline', text(now + tonumber(ARGV[9])),
    'fence', text(now + tonumber(ARGV[12])))
end
redis.call('PEXPIRE', ADOPT, 20000)
local winner = redis.call('HGET', ADOPT, 'winner')
if winner then
  if tonumber(redis.call('HGET', ADOPT, 'until')) > now then
    if winner == ME then return {'SEED'} end
    return {'WAIT', '100'}
  end
  redis.call('HDEL', ADOPT, 'winner', 'o:' .. winner)
end
redis.call('HSET', ADOPT, 'o:' .. ME,
  cjson.encode({tonumber(ARGV[7]), tonumber(ARGV[4]), tonumber(ARGV[8]), ARGV[5]}))
local live = live_servers(now)
local all = #live > 0
for _, id in ipairs(live) do
  if redis.call('HEXISTS', ADOPT, 'o:' .. id) == 0 then all = false end
end
local left = tonumber(redis.call('HGET', ADOPT, 'deadline')) - now
if not all and left > 0 then return {'WAIT', text(math.min(left, 100))} end
local best, best_id
local offers = redis.call('HGETALL', ADOPT)
for i = 1, #offers, 2 do
  if string.sub(offers[i], 1, 2) == 'o:' then
    local o, id = cjson.decode(offers[i + 1]), string.sub(offers[i], 3)
    local better = not best or o[1] > best[1]
      or (o[1] == best[1] and (o[2] > best[2] or (o[2] == best[2] and (o[3] > best[3]
      or (o[3] == best[3] and id < best_id)))))
    if better then best, best_id = o, id end
  end
end
if whole then
  local number, seq = tonumber(string.match(m[3], '^(%d+)')), tonumber(m[4])
  local same = number > best[1]
  if number == best[1] and seq >= best[2] then
    local tag = m[5]
    if seq > best[2] then tag = tag_of(best[2]) end
    same = not tag or tag == best[4]
  end
  if same then
    redis.call('HSET', META, 'server', ARGV[2], 'epoch', text(number + 1) .. '-' .. ARGV[10],
      'fence', redis.call('HGET', ADOPT, 'fence'))
    redis.call('DEL', ADOPT)
    return {'DONE'}
  end
end
redis.call('HSET', ADOPT, 'winner', best_id, 'until', text(now + tonumber(ARGV[11])))
if best_id == ME then return {'SEED'} end
return {'WAIT', '100'}
"""

# KEYS 8 the new routes, 9 the new activity. 7 number of the caller's epoch, 8 count, 9 random.
_COMMIT = r"""
if redis.call('HGET', ADOPT, 'winner') ~= ME or redis.call('HGET', ADOPT, 'run') ~= ARGV[2] then
  return {'LOST'}
end
if tonumber(redis.call('HGET', ADOPT, 'until')) < now_ms() then return {'LOST'} end
local count = redis.call('HLEN', KEYS[8])
if count ~= tonumber(ARGV[8]) then return {'LOST'} end
local m = redis.call('HMGET', META, 'epoch', 'seq')
local number = tonumber(string.match(m[1] or '0', '^(%d+)'))
number = math.max(number, tonumber(ARGV[7])) + 1
local seq = text(math.max(tonumber(m[2] or 0), tonumber(ARGV[4])) + 1)
local fence = redis.call('HGET', ADOPT, 'fence')
redis.call('DEL', ROUTES, ACTIVITY, LOG, ACKS, ADOPT)
-- RENAME takes the time to live along.
if count > 0 then redis.call('RENAME', KEYS[8], ROUTES); redis.call('PERSIST', ROUTES) end
if redis.call('EXISTS', KEYS[9]) == 1 then
  redis.call('RENAME', KEYS[9], ACTIVITY); redis.call('PERSIST', ACTIVITY)
end
local epoch = text(number) .. '-' .. ARGV[9]
redis.call('HSET', META, 'format', '1', 'server', ARGV[2], 'epoch', epoch,
  'seq', seq, 'tag', ARGV[9], 'count', text(count), 'fence', fence)
return {'OK', epoch, seq, ARGV[9]}
"""

# KEYS 1 one that nobody uses. Answers which commands the user must not run: some are needed only
# after a loss. Each is tried on what is not there.
_RIGHTS = r"""
local key, missing = KEYS[1], {}
local function try(name, ...)
  local answer = redis.pcall(name, ...)
  if type(answer) ~= 'table' or not answer.err then return end
  -- The second is what Redis 6 says.
  if string.find(answer.err, 'NOPERM') or string.find(answer.err, "can't run this command") then
    missing[#missing + 1] = string.lower(name)
  end
end
try('TIME')
try('EXISTS', key)
for _, name in ipairs({'HGETALL', 'HLEN', 'ZCARD', 'DEL', 'PERSIST'}) do try(name, key) end
for _, name in ipairs({'HMGET', 'HGET', 'HDEL', 'HEXISTS', 'ZREM'}) do try(name, key, 'x') end
try('PEXPIRE', key, 1000)
try('RENAME', key, key)
try('HSCAN', key, 0)
try('ZRANGEBYSCORE', key, 0, 0)
try('XRANGE', key, '-', '+')
try('XREAD', 'STREAMS', key, '0')
-- These make something, which goes by itself if need be.
for _, command in ipairs({
  {'HSET', key, 'x', '1'}, {'HINCRBY', key, 'x', '1'}, {'ZADD', key, '1', 'x'},
  {'XADD', key, '*', 'x', 'x'},
}) do
  try(unpack(command))
  redis.pcall('PEXPIRE', key, 1000)
  redis.pcall('DEL', key)
end
return missing
"""

TEXTS: Final = {
    name: _COMMON + text
    for name, text in {
        "change": _CHANGE,
        "beat": _BEAT,
        "pending": _PENDING,
        "leave": _LEAVE,
        "activity": _ACTIVITY,
        "adopt": _ADOPT,
        "commit": _COMMIT,
    }.items()
} | {"rights": _RIGHTS}
DIGESTS: Final = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in TEXTS.items()}
"""What ``EVALSHA`` knows each script by."""
