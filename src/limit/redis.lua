-- What a shared store counts, in a Redis: step by step as the ledger in fleet/ledger.rs, which says what each number means.
-- All times are whole microseconds by this server's clock, below 2^53, so that Lua's floating-point numbers hold them.
--
-- KEYS: the numbers, and the processes by until when each counts as there.
-- ARGV: what is done, and its numbers. Answers integers.

local LEASED, TOLERANCE, LATE, PRESENCE = 500000, 20000, 250000, 30000000
local LONGEST_PAUSE, PROBE = 7200000000, 500000

local numbers, processes = KEYS[1], KEYS[2]
local max, min, floor = math.max, math.min, math.floor

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function text(number)
    return string.format('%.0f', number)
end

-- What is not what this script wrote counts as nothing: the callers know the most of it again.
local function spoiled(key, kind)
    local is = redis.call('TYPE', key).ok
    return is ~= kind and is ~= 'none'
end
local tat, line, put_off, paused_until, probed = 0, 0, 0, 0, 0
if spoiled(numbers, 'string') then
    redis.call('DEL', numbers)
end
local stored = redis.call('GET', numbers)
if stored then
    local found = { string.match(stored, '^(%d+) (%d+) (%d+) (%d+) (%d+)$') }
    local sound = #found == 5
    for i, digits in ipairs(found) do
        found[i] = tonumber(digits)
        sound = sound and found[i] < 2 ^ 52
    end
    if sound then
        tat, line, put_off, paused_until, probed = unpack(found)
    end
end

local function store(how_long)
    local all = { text(tat), text(line), text(put_off), text(paused_until), text(probed) }
    redis.call('SET', numbers, table.concat(all, ' '), unpack(how_long))
end

if ARGV[1] == 'give back' then
    local process, leaves, told = ARGV[2], ARGV[3] == '1', tonumber(ARGV[6])
    if leaves and not spoiled(processes, 'zset') then
        redis.call('ZREM', processes, process)
    end
    if tat ~= told then
        return
    end
    local left = max(0, tat - ARGV[4] * ARGV[5])
    if line == tat then
        line = left
    end
    tat = left
    if stored then
        store({ 'KEEPTTL' })
    end
    return
end

local step, ahead, keep = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function put_turns_off(after, by)
    if line > after then
        line = line + by
    end
    put_off = put_off + by
end

local function put_off_to(to)
    put_turns_off(tat, max(0, to - tat))
    tat = max(tat, to)
end

local function look(seen_tat, seen_pause)
    if seen_pause > now then
        paused_until = max(paused_until, seen_pause)
    end
    paused_until = min(paused_until, now + LONGEST_PAUSE)
    probed = min(probed, now + LONGEST_PAUSE)
    local open = max(now, paused_until)
    local farthest = open + ahead + TOLERANCE + max(step, ahead + PROBE)
    local told = max(tat, seen_tat)
    if tat == 0 and seen_tat > 0 then
        told = max(told, now + ahead + step)
    end
    tat = max(min(told, farthest), open)
end

local function remember()
    local last = max(tat, line, paused_until) - now + keep
    store({ 'PX', text(max(1, floor(last / 1000) + 1)) })
end

look(tonumber(ARGV[5]), tonumber(ARGV[6]))

if ARGV[1] == 'pause' then
    local ends = now + min(tonumber(ARGV[7]), LONGEST_PAUSE)
    if ends > paused_until then
        paused_until = ends
        put_off_to(ends)
    end
    remember()
    return
end

local process, wanted, hold = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local turn_at, turn_put_off = tonumber(ARGV[10]), tonumber(ARGV[11])

if spoiled(processes, 'zset') then
    redis.call('DEL', processes)
end
redis.call('ZREMRANGEBYSCORE', processes, '-inf', text(now))

local function is_there(at)
    local till = max(at, now) + PRESENCE
    redis.call('ZADD', processes, text(till), process)
    local left = floor((till - now) / 1000) + 1
    if redis.call('PTTL', processes) < left then
        redis.call('PEXPIRE', processes, text(left))
    end
end

local function beginning_by(latest)
    return max(0, floor((latest - tat) / step) + 1)
end

local function grant(count)
    if probed >= paused_until then
        tat = tat + step * count
        return count
    end
    probed = paused_until
    tat = tat + step
    put_off_to(tat + max(0, ahead + PROBE - step))
    return 1
end

local function says(granted, wait, turn)
    remember()
    return {
        granted, max(0, wait), turn or -1, put_off, now, tat, paused_until,
        redis.call('ZCARD', processes),
    }
end

put_off_to(now + hold)
is_there(now)
local there = redis.call('ZCARD', processes)
local share = max(1, floor(LEASED / (step * there)))

line = min(line, tat + step * (there * share + 1) + ahead)
local line_end = max(line, tat)
local at, has_turn = line_end, turn_at >= 0
if has_turn then
    at = min(turn_at + max(0, put_off - turn_put_off), line_end)
end
local latest = now + ahead
local is_due = at <= latest + TOLERANCE
local is_late = at + LATE < latest
if has_turn and is_due and not is_late and at < tat then
    put_turns_off(at, tat - at)
    at = tat
end

local own = is_due and min(beginning_by(latest + TOLERANCE), share) or 0
local granted = min(max(beginning_by(now + floor(ahead / 2)), own), wanted)
if granted > 0 then
    local first = tat
    granted = grant(granted)
    if is_due and not has_turn then
        line = max(line, line_end) + step * granted
    end
    return says(granted, first - now)
end
if wanted == 0 then
    return says(0, 0)
end
if not has_turn then
    line = at + step * min(share, wanted)
end
is_there(at)
return says(0, (is_due and tat or at) - latest, at)
