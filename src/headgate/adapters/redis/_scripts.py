"""The Lua scripts that decide in the server, and the layout of what they read, write and return.

The state of a key is a string of little-endian doubles, all of them whole numbers:

    version (1 byte) | at | interval, denominator, end, rest | interval, denominator, end, rest | ...

`at` is the server's time of the last write, in microseconds. Each tier has the interval between two of its
tokens as a fraction, in microseconds, and the time at which nothing is owed any more: `end` in whole
microseconds, and `rest` in parts of the denominator. A strict key is a list of the times of its last tokens.

The client computes what a cost and a burst are in these units, so that the scripts only add and compare,
below 2**53. They read everything before they write.
"""

from __future__ import annotations

from hashlib import sha1

from headgate.adapters.redis._replies import packed_head

_PRELUDE = """
local pack, unpack_ = struct.pack, struct.unpack
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

_STATE = """
local function load(key)
  local value = redis.call('GET', key)
  if not value then return value end
  if string.byte(value) ~= 1 then error('the state of ' .. key .. ' has another version') end
  local sound = #value % 32 == 9 and unpack_('<d', value, 2) < 2^53
  for i = 10, sound and #value or 0, 32 do
    local interval, denominator, ends, rest = unpack_('<dddd', value, i)
    sound = sound and interval >= 1 and denominator >= 1 and ends < 2^53 and rest >= 0 and rest < denominator
  end
  if not sound then error('the state of ' .. key .. ' is damaged') end
  return value
end

-- What is owed at each tier, in the units of the caller, and whether it was in others. If the clock has
-- stepped back, no time has passed.
local function debts(value, tiers)
  local found, base, converted = {}, now, false
  if value then base = math.max(now, (unpack_('<d', value, 2))) end
  for i = 0, #tiers / 48 - 1 do
    local whole, rest = 0, 0
    if value and #value >= 41 + 32 * i then
      local old, parts, ends, more = unpack_('<dddd', value, 10 + 32 * i)
      if ends >= base then
        whole, rest = ends - base, more
        local interval, denominator = unpack_('<dd', tiers, 1 + 48 * i)
        if old ~= interval or parts ~= denominator then  -- other rates: the same tokens, rounded up
          local tokens = (whole + rest / parts) * parts / old
          local owed = tokens * interval / denominator
          whole, rest, converted = math.min(math.ceil(owed + owed * 2^-50), 2^52), 0, true
        end
      end
    end
    found[2 * i + 1], found[2 * i + 2] = whole, rest
  end
  return found, base, converted
end

local function store(key, value, base, found, tiers)
  local parts, longest, length = {pack('<Bd', 1, now)}, 0, #tiers / 48
  for i = 0, length - 1 do
    local whole, rest = found[2 * i + 1], found[2 * i + 2]
    local interval, denominator = unpack_('<dd', tiers, 1 + 48 * i)
    parts[i + 2] = pack('<dddd', interval, denominator, now + whole, rest)
    if rest > 0 then whole = whole + 1 end
    if whole > longest then longest = whole end
  end
  if value and #value > 9 + 32 * length then  -- tiers that only other callers have
    for i = length, (#value - 9) / 32 - 1 do
      local interval, denominator, ends, rest = unpack_('<dddd', value, 10 + 32 * i)
      local whole = math.max(0, ends - base)
      parts[i + 2] = pack('<dddd', interval, denominator, now + whole, rest)
      if whole + 1 > longest then longest = whole + 1 end
    end
  end
  if longest > 0 then
    redis.call('SET', key, table.concat(parts), 'PX', math.ceil(longest / 1000) + 1)
  elseif value then
    redis.call('DEL', key)
  end
end

local function report(allowed, found)
  local parts = {pack('<Bd', allowed and 1 or 0, now)}
  for i = 1, #found do parts[i + 1] = pack('<d', found[i]) end
  return table.concat(parts)
end
"""

# The same decisions as below where each key has one tier, and its state is of that rate: the usual case.
_QUICK = """
local function quick(tiers, value, is_peek)
  if #tiers ~= 48 or value and #value ~= 41 then return end
  local interval, denominator, cost, part, most, left = unpack_('<dddddd', tiers)
  local whole, rest = 0, 0
  if value then
    local version, at, old, parts, ends, more = unpack_('<Bddddd', value)
    if version ~= 1 or not (at <= now) or old ~= interval or parts ~= denominator then return end
    if not (ends < 2^53 and more >= 0 and more < parts) then return end
    if ends >= now then whole, rest = ends - now, more end
  end
  local next, over = whole + cost, rest + part
  if over >= denominator then next, over = next + 1, over - denominator end
  local free = cost == 0 and part == 0
  if not free and (next > most or next == most and over > left) then
    return pack('<Bddd', 0, now, whole, rest)
  end
  if free or is_peek then return pack('<Bddd', 1, now, whole, rest) end
  return pack('<Bddd', 1, now, next, over), math.ceil((next + 1) / 1000) + 1,
         pack('<Bddddd', 1, now, interval, denominator, now + next, over)
end

local mode = ARGV[#KEYS + 1]
if mode ~= 'all' then
  local reports, lifetimes, states = {}, {}, {}
  for k = 1, #KEYS do
    reports[k], lifetimes[k], states[k] = quick(ARGV[k], redis.call('GET', KEYS[k]), mode == 'peek')
    if not reports[k] then break end
  end
  if #reports == #KEYS then
    for k = 1, #KEYS do
      if lifetimes[k] then redis.call('SET', KEYS[k], states[k], 'PX', lifetimes[k]) end
    end
    return table.concat(reports)
  end
end
"""

# For each key the tiers of its limit: interval, denominator, cost and burst, each of these two in whole
# microseconds and the rest. The mode is 'each', 'all' (all keys or none) or 'peek'.
_TAKE = """
local function charge(found, tiers)
  local charged, taken = {}, false
  for i = 0, #tiers / 48 - 1 do
    local denominator, cost, part, most, left = unpack_('<ddddd', tiers, 9 + 48 * i)
    local whole, rest = found[2 * i + 1] + cost, found[2 * i + 2] + part
    if rest >= denominator then whole, rest = whole + 1, rest - denominator end
    if cost > 0 or part > 0 then
      if whole > most or whole == most and rest > left then return nil, false end
      taken = true
    end
    charged[2 * i + 1], charged[2 * i + 2] = whole, rest
  end
  return charged, taken
end

local keys = #KEYS
local values, bases, converted, before, after, takes, all = {}, {}, {}, {}, {}, {}, true
for k = 1, keys do
  values[k] = load(KEYS[k])
  before[k], bases[k], converted[k] = debts(values[k], ARGV[k])
  after[k], takes[k] = charge(before[k], ARGV[k])
  all = all and after[k] ~= nil
end
local reports = {}
for k = 1, keys do
  local found, charged = before[k], nil
  if mode ~= 'peek' and (all or mode == 'each') then charged = after[k] end
  if charged and takes[k] then
    found = charged
    store(KEYS[k], values[k], bases[k], charged, ARGV[k])
  elseif mode ~= 'peek' and (bases[k] > now or converted[k]) then
    store(KEYS[k], values[k], bases[k], found, ARGV[k])
  end
  reports[k] = report(after[k] ~= nil, found)
end
return table.concat(reports)
"""

# For each key its tiers as in 'take', with what is given back in the place of the cost. With a time in
# ARGV[#KEYS + 1] the burst is what was charged at that time, of which no more is given back than is left
# after the time since; if it is 'more', the amount is charged, but no key owes more than its burst.
_GIVE = """
local function less(whole, rest, by, part, denominator)
  whole, rest = whole - by, rest - part
  if rest < 0 then whole, rest = whole - 1, rest + denominator end
  if whole < 0 then return 0, 0 end
  return whole, rest
end

local function given(found, tiers, since)
  for i = 0, #tiers / 48 - 1 do
    local denominator, back, part, charged, left = unpack_('<ddddd', tiers, 9 + 48 * i)
    local whole, rest = found[2 * i + 1], found[2 * i + 2]
    if since then
      charged, left = less(charged, left, math.max(0, now - since), 0, denominator)
      if charged < back or charged == back and left < part then back, part = charged, left end
    end
    found[2 * i + 1], found[2 * i + 2] = less(whole, rest, back, part, denominator)
  end
end

local function raised(found, tiers)
  for i = 0, #tiers / 48 - 1 do
    local denominator, cost, part, most, left = unpack_('<ddddd', tiers, 9 + 48 * i)
    local whole, rest = found[2 * i + 1], found[2 * i + 2]
    if whole < most or whole == most and rest < left then
      whole, rest = whole + cost, rest + part
      if rest >= denominator then whole, rest = whole + 1, rest - denominator end
      if whole > most or whole == most and rest > left then whole, rest = most, left end
      found[2 * i + 1], found[2 * i + 2] = whole, rest
    end
  end
end

local keys, mode = #KEYS, ARGV[#KEYS + 1]
local values, bases, founds = {}, {}, {}
for k = 1, keys do
  values[k] = load(KEYS[k])
  founds[k], bases[k] = debts(values[k], ARGV[k])
  if mode == 'more' then raised(founds[k], ARGV[k]) else given(founds[k], ARGV[k], tonumber(mode)) end
end
for k = 1, keys do
  if values[k] or mode == 'more' then store(KEYS[k], values[k], bases[k], founds[k], ARGV[k]) end
end
return pack('<Bd', 1, now)
"""

# The tiers as in 'take', with the cost of the request; then the most tokens, how many the request takes, and
# for each tier the costs of 4 and 1 tokens, 8 and 2, 16 and 4, ... A quarter of what remains is granted.
_LEASE = """
local tiers, doublings = ARGV[1], ARGV[2]
local most, wanted = unpack_('<dd', doublings)
local value = load(KEYS[1])
local before, base, converted = debts(value, tiers)
local count = #tiers / 48
local steps = (#doublings - 16) / (32 * count)

local function sum(whole, rest, by, part, denominator)
  whole, rest = whole + by, rest + part
  if rest >= denominator then return whole + 1, rest - denominator end
  return whole, rest
end

local granted, allowed = most, true
for i = 0, count - 1 do
  local denominator, cost, part, burst, left = unpack_('<ddddd', tiers, 9 + 48 * i)
  local whole, rest = sum(before[2 * i + 1], before[2 * i + 2], cost, part, denominator)
  if whole > burst or whole == burst and rest > left then allowed = false end
  local quarter = 0
  whole, rest = before[2 * i + 1], before[2 * i + 2]
  for j = steps - 1, 0, -1 do
    local by, more = unpack_('<dd', doublings, 17 + 32 * (steps * i + j))
    local next, over = sum(whole, rest, by, more, denominator)
    if next < burst or next == burst and over <= left then
      whole, rest, quarter = next, over, quarter + 2^j
    end
  end
  granted = math.min(granted, quarter)
end
granted = math.min(most, math.max(wanted, granted))
if not allowed then
  if base > now or converted then store(KEYS[1], value, base, before, tiers) end
  return report(false, before) .. pack('<d', 0)
end
for i = 0, count - 1 do
  local denominator = unpack_('<d', tiers, 9 + 48 * i)
  local rest = granted
  for j = steps - 1, 0, -1 do
    if rest >= 2^j then
      local by, more = unpack_('<dd', doublings, 33 + 32 * (steps * i + j))
      before[2 * i + 1], before[2 * i + 2] = sum(before[2 * i + 1], before[2 * i + 2], by, more, denominator)
      rest = rest - 2^j
    end
  end
end
store(KEYS[1], value, base, before, tiers)
return report(true, before) .. pack('<d', granted)
"""

_LOG = """
local function at(key, number)  -- 1 is the newest
  local entry = tonumber(redis.call('LINDEX', key, -number))
  if not (entry and entry < 2^53) then error('the state of ' .. key .. ' is damaged') end
  return entry
end

-- How many of the newest entries are later than `bound`.
local function later(key, length, bound)
  local low, high = 0, length
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    if at(key, middle) > bound then low = middle else high = middle - 1 end
  end
  return low
end

local function push(key, entries)
  for first = 1, #entries, 1000 do
    redis.call('RPUSH', key, unpack(entries, first, math.min(first + 999, #entries)))
  end
end

-- If the clock has stepped back, no time has passed: all entries move back with it.
local function move(key, by)
  local entries = redis.call('LRANGE', key, 0, -1)
  for i = 1, #entries do entries[i] = string.format('%.0f', tonumber(entries[i]) - by) end
  redis.call('DEL', key)
  push(key, entries)
end

local function longest(windows)
  local period, limit = 0, 0
  for i = 0, (#windows - 8) / 16 - 1 do
    local most, length = unpack_('<dd', windows, 9 + 16 * i)
    period, limit = math.max(period, length), math.max(limit, most)
  end
  return period, limit
end

local function add(key, count, windows)
  local period, limit = longest(windows)
  local entries, text = {}, string.format('%.0f', now)
  for i = 1, count do entries[i] = text end
  push(key, entries)
  redis.call('LTRIM', key, -limit, -1)
  redis.call('PEXPIRE', key, math.ceil(period / 1000) + 1)
end
"""

# For each key the cost and, for each window, limit and period. The report has, for each window, how many
# entries count, how long the request has to wait, how long anything counts, and how long until one may come.
_STRICT_TAKE = """
local function measure(key, length, newest, base, cost, windows)
  local found, allowed = {}, true
  for i = 0, (#windows - 8) / 16 - 1 do
    local limit, period = unpack_('<dd', windows, 9 + 16 * i)
    local wait = 0
    if cost > 0 then
      local place = limit - cost + 1
      if place < 1 then wait = period
      elseif place <= length then wait = math.max(0, at(key, place) + period - base) end
    end
    if wait > 0 then allowed = false end
    found[4 * i + 1] = later(key, math.min(length, limit), base - period)
    found[4 * i + 2] = wait
    found[4 * i + 3] = newest and math.max(0, newest + period - base) or 0
    found[4 * i + 4] = limit <= length and limit > 0 and math.max(0, at(key, limit) + period - base) or 0
  end
  return found, allowed
end

local function charged(key, found, length, base, cost, windows)
  for i = 0, (#windows - 8) / 16 - 1 do
    local limit, period = unpack_('<dd', windows, 9 + 16 * i)
    local place = limit - cost
    found[4 * i + 1], found[4 * i + 3] = found[4 * i + 1] + cost, period
    if place < 1 then found[4 * i + 4] = period
    elseif place <= length then found[4 * i + 4] = math.max(0, at(key, place) + period - base)
    else found[4 * i + 4] = 0 end
  end
end

local keys, mode = #KEYS, ARGV[#KEYS + 1]
local bases, founds, passes, costs, all = {}, {}, {}, {}, true
for k = 1, keys do
  local length = redis.call('LLEN', KEYS[k])
  local newest = length > 0 and at(KEYS[k], 1) or nil
  bases[k], costs[k] = math.max(now, newest or now), (unpack_('<d', ARGV[k]))
  founds[k], passes[k] = measure(KEYS[k], length, newest, bases[k], costs[k], ARGV[k])
  all = all and passes[k]
  if mode ~= 'peek' and mode ~= 'all' and passes[k] and costs[k] > 0 then
    charged(KEYS[k], founds[k], length, bases[k], costs[k], ARGV[k])
  end
end
local reports = {}
for k = 1, keys do
  if mode ~= 'peek' then
    if bases[k] > now then move(KEYS[k], bases[k] - now) end
    if passes[k] and costs[k] > 0 then add(KEYS[k], costs[k], ARGV[k]) end
  end
  local parts = {pack('<Bd', passes[k] and 1 or 0, now)}
  for i = 1, #founds[k] do parts[i + 1] = pack('<d', founds[k][i]) end
  reports[k] = table.concat(parts)
end
return table.concat(reports)
"""

# For each key an amount in the place of the cost: that many of the oldest entries that count are dropped.
# With a time in ARGV[#KEYS + 1] nothing is dropped if it has left all windows; 'more' adds entries instead,
# as many as every window allows.
_STRICT_GIVE = """
local mode = ARGV[#KEYS + 1]
local since, moves, drops, adds = tonumber(mode), {}, {}, {}
for k = 1, #KEYS do
  local key, windows = KEYS[k], ARGV[k]
  local amount, period = unpack_('<d', windows), longest(windows)
  local length = redis.call('LLEN', key)
  local base = length > 0 and math.max(now, at(key, 1)) or now
  if base > now then moves[k] = base - now end
  if mode == 'more' then
    for i = 0, (#windows - 8) / 16 - 1 do
      local limit, width = unpack_('<dd', windows, 9 + 16 * i)
      amount = math.min(amount, limit - later(key, math.min(length, limit), base - width))
    end
    adds[k] = amount
  elseif length > 0 and not (since and now - since >= period) then
    local live = later(key, length, base - period)
    drops[k] = length - live + math.min(amount, live)
  end
end
for k = 1, #KEYS do
  if moves[k] then move(KEYS[k], moves[k]) end
  if drops[k] then redis.call('LTRIM', KEYS[k], drops[k], -1) end
  if adds[k] and adds[k] > 0 then add(KEYS[k], adds[k], ARGV[k]) end
end
return pack('<Bd', 1, now)
"""


class Script:
    """A script that the server keeps under the hash of its text."""

    __slots__ = ("_heads", "source")

    def __init__(self, *parts: str) -> None:
        self.source = "".join(parts).encode()
        self._heads: dict[tuple[int, bool], bytes] = {}

    def head(self, keys: int, in_full: bool = False) -> bytes:
        """The command up to its keys, for so many keys and one more argument than keys; by the hash, or with
        the whole text.
        """
        found = self._heads.get((keys, in_full))
        if found is None:
            text = self.source if in_full else sha1(self.source, usedforsecurity=False).hexdigest().encode()
            found = packed_head(3 + 2 * keys + 1, b"EVAL" if in_full else b"EVALSHA", text, b"%d" % keys)
            self._heads[keys, in_full] = found
        return found


TAKE = Script(_PRELUDE, _QUICK, _STATE, _TAKE)
GIVE = Script(_PRELUDE, _STATE, _GIVE)
LEASE = Script(_PRELUDE, _STATE, _LEASE)
STRICT_TAKE = Script(_PRELUDE, _LOG, _STRICT_TAKE)
STRICT_GIVE = Script(_PRELUDE, _LOG, _STRICT_GIVE)
