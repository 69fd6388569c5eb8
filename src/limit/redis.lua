-- What a shared store counts, in a Redis: step by step as the ledger in fleet/ledger.rs, which says what each number means.
-- All times are whole microseconds by this Redis's clock, below 2^53, so that Lua's floating-point numbers hold them.
--
-- KEYS: the numbers, and the processes by until when each counts as there.
-- ARGV: what is done, and its numbers. Answers integers.

local LEASED, TOLERANCE, LATE, PRESENCE = 500000, 20000, 250000, 30000000
local LONGEST_PAUSE, PROBE = 7200000000, 500000
local IN_FLIGHT, ARRIVES_WITHIN, DOUBTED, RESOLUTION = 10000000, 1000000, 300000000, 1000

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
-- The server's window, as in fleet/window.rs. `reset` is its name, in ms by the server's own clock; 0 where none was proved.
local reset, goes_on, ends, left, banned_until, slot, its_step = 0, 0, 0, 0, 0, 0, 0
local granted_now, granted_last, granted_before = 0, 0, 0
if spoiled(numbers, 'string') then
    redis.call('DEL', numbers)
end
local stored = redis.call('GET', numbers)
if stored then
    local found, sound = {}, not string.find(stored, '[^%d ]')
    for digits in string.gmatch(stored, '%d+') do
        found[#found + 1] = tonumber(digits)
        sound = sound and found[#found] < 2 ^ 52
    end
    if sound and (#found == 5 or #found == 15) then
        tat, line, put_off, paused_until, probed = unpack(found)
    end
    if sound and #found == 15 then
        reset, goes_on, ends, left, banned_until, slot, its_step = unpack(found, 6)
        granted_now, granted_last, granted_before = unpack(found, 13)
    end
end

local function store(how_long)
    local all = { text(tat), text(line), text(put_off), text(paused_until), text(probed) }
    if reset > 0 or banned_until > 0 then
        local window = {
            reset, goes_on, ends, left, banned_until, slot, its_step,
            granted_now, granted_last, granted_before,
        }
        for _, number in ipairs(window) do
            all[#all + 1] = text(number)
        end
    end
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

local function forget_window(banned)
    reset, goes_on, ends, left, banned_until, slot, its_step = 0, 0, 0, 0, banned, 0, 0
    granted_now, granted_last, granted_before = 0, 0, 0
end

local function doubt()
    if reset > 0 then
        forget_window(now + DOUBTED)
    end
end

local function wait_for_counts()
    banned_until = max(banned_until, now + 3 * IN_FLIGHT)
end

local function look_at_window()
    banned_until = min(banned_until, now + DOUBTED)
    if reset == 0 then
        return
    end
    if now < slot then
        return forget_window(0)
    end
    local passed = floor((now - slot) / IN_FLIGHT)
    slot = slot + passed * IN_FLIGHT
    for _ = 1, min(passed, 3) do
        granted_now, granted_last, granted_before = 0, granted_now, granted_last
    end
end

local function look(seen_tat, seen_pause)
    if seen_pause > now then
        paused_until = max(paused_until, seen_pause)
    end
    paused_until = min(paused_until, now + LONGEST_PAUSE)
    probed = min(probed, now + LONGEST_PAUSE)
    local open = max(now, paused_until)
    local farthest = open + ahead + TOLERANCE + max(step, ahead + PROBE)
    look_at_window()
    if reset > 0 and seen_tat > max(tat, now) then
        left = 0
        wait_for_counts()
    end
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
    doubt()
    local till = now + min(tonumber(ARGV[7]), LONGEST_PAUSE)
    if till > paused_until then
        paused_until = till
        put_off_to(till)
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

local function granted_since(since)
    local sum, begins = 0, slot
    for _, granted in ipairs({ granted_now, granted_last, granted_before }) do
        sum = sum + granted
        if since >= begins then
            return sum
        end
        begins = max(0, begins - IN_FLIGHT)
    end
end

local function told(said, length, remaining, sent, lasts, proved)
    local till, left_at = now + lasts, min(sent, now)
    local counted = max(0, left_at - RESOLUTION * 1000)
    if reset == 0 then
        if proved and now >= banned_until then
            forget_window(0)
            reset, goes_on, ends, slot, its_step = said, counted, till, now, step
            wait_for_counts()
        end
        return
    end
    if step ~= its_step then
        return doubt()
    end
    local granted = granted_since(max(0, left_at - IN_FLIGHT))
    local surely = granted and now >= banned_until and max(0, remaining - granted) or 0
    if said > reset + RESOLUTION then
        if said - reset < max(0, length - 2 * RESOLUTION) then
            return doubt()
        end
        local apart = (said - reset) * 1000
        local drift = floor(apart / 5000)
        goes_on = max(counted, goes_on + apart - drift)
        ends = min(till, ends + apart + RESOLUTION * 1000 + drift)
        reset, left = said, surely
    elseif said + RESOLUTION >= reset then
        goes_on = max(goes_on, counted)
        ends = min(ends, till)
        if remaining < left then
            return doubt()
        end
        left = max(left, surely)
    else
        local apart = (reset - said) * 1000
        goes_on = max(goes_on, counted + apart - floor(apart / 5000))
    end
    goes_on = min(goes_on, ends)
end

local function leave_at_once(latest)
    if paused_until > now or probed < paused_until or tat > latest then
        return 0
    end
    if reset == 0 or its_step ~= step or now < banned_until then
        return 0
    end
    if now + ARRIVES_WITHIN > goes_on then
        return 0
    end
    local paced = floor(max(0, ends - max(tat, now)) / step)
    return math.ceil(max(0, left - (paced + floor(paced / 50) + 3)) / 2)
end

local function count_granted(count)
    if reset > 0 then
        left = max(0, left - count)
        granted_now = granted_now + count
    end
end

local function says(granted, wait, turn, at_once)
    remember()
    return {
        granted, max(0, wait), turn or -1, put_off, now, tat, paused_until,
        redis.call('ZCARD', processes), at_once and 1 or 0, reset > 0 and 1 or 0,
    }
end

put_off_to(now + hold)
if ARGV[12] == '1' or hold > 0 then
    doubt()
end
if ARGV[13] ~= '0' then
    local seen = {}
    for i = 13, 17 do
        seen[#seen + 1] = tonumber(ARGV[i])
    end
    told(seen[1], seen[2], seen[3], seen[4], seen[5], ARGV[18] == '1')
end
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

local at_once = min(leave_at_once(latest), wanted)
if at_once > beginning_by(now) then
    count_granted(at_once)
    return says(at_once, 0, nil, true)
end

local own = is_due and min(beginning_by(latest + TOLERANCE), share) or 0
local granted = min(max(beginning_by(now + floor(ahead / 2)), own), wanted)
if granted > 0 then
    local first = tat
    granted = grant(granted)
    count_granted(granted)
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
