-- The task slots of all processes, in a Redis: step by step as the ledger in fleet/ledger.rs, which says what each number
-- means. All times are whole microseconds by this server's clock, below 2^53, so that Lua's floating-point numbers hold them.
--
-- KEYS: the slots by until when each is kept; the order of those in line; until when each of them keeps its place; until
-- when each process counts as there; the tasks that ended; from when on slots may be taken.
-- ARGV: what is done, the process, and more.

local SECOND, POLL, LONGEST_POLL = 1000000, 200000, 5000000
local HOLD, PRESENCE, ENDED = 6000000, 30000000, 300000000
-- For so long what the store knows is kept after its last use.
local KNOWN = 86400000

local slots, line, waits, there, ended, opens = unpack(KEYS)
local max, min, floor = math.max, math.min, math.floor

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local process = ARGV[2]

local function text(number)
    return string.format('%.0f', number)
end

-- What is not what this script wrote counts as nothing: the callers know it again.
for i, key in ipairs(KEYS) do
    local is = redis.call('TYPE', key).ok
    if is ~= 'none' and is ~= (i == 6 and 'string' or 'zset') then
        redis.call('DEL', key)
    end
end

local function lasts(key, micros)
    local left = floor(micros / 1000) + 1
    if redis.call('PTTL', key) < left then
        redis.call('PEXPIRE', key, text(left))
    end
end

local function score(key, member)
    local found = redis.call('ZSCORE', key, member)
    return found and tonumber(found)
end

local function set(key, member, at)
    redis.call('ZADD', key, text(at), member)
    lasts(key, at - now)
end

local function leave_line(who)
    redis.call('ZREM', line, who)
    redis.call('ZREM', waits, who)
end

local open = tonumber(redis.call('GET', opens) or '')
open = min(open or math.huge, now + HOLD)
redis.call('ZREMRANGEBYSCORE', slots, '-inf', text(now))
redis.call('ZREMRANGEBYSCORE', ended, '-inf', text(now))
redis.call('ZREMRANGEBYSCORE', there, '-inf', text(now))
for _, who in ipairs(redis.call('ZRANGEBYSCORE', waits, '-inf', text(now))) do
    leave_line(who)
end
set(there, process, now + PRESENCE)

local function keep(name, micros)
    local till = now + micros
    if string.sub(name, 1, 1) == 't' then
        till = max(till, score(slots, name) or 0)
    end
    set(slots, name, till)
end

local function says(answer)
    redis.call('SET', opens, text(open), 'PX', KNOWN)
    answer[#answer + 1] = redis.call('ZCARD', slots)
    answer[#answer + 1] = redis.call('ZCARD', there)
    return answer
end

if ARGV[1] == 'take' then
    local first, wanted = tonumber(ARGV[3]), tonumber(ARGV[4])
    local capacity, micros = tonumber(ARGV[5]), tonumber(ARGV[6])
    local is_in_line = score(line, process)
    local others = redis.call('ZCARD', line) - (is_in_line and 1 or 0)
    local free = max(0, capacity - redis.call('ZCARD', slots))
    local granted = min(wanted, free)
    if open > now then
        granted = 0
    elseif others > 0 then
        local ahead = is_in_line and redis.call('ZRANK', line, process) or others
        local share = max(1, floor(free / (others + 1)))
        granted = min(wanted, share, max(0, free - ahead))
    end
    for number = first, first + granted - 1 do
        keep('r' .. process .. '.' .. text(number), micros)
    end
    if granted >= wanted then
        leave_line(process)
        return says({ granted, 0 })
    end
    if granted > 0 or not is_in_line then
        local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')
        redis.call('ZADD', line, text((last[2] or 0) + 1), process)
    end
    local ahead = redis.call('ZRANK', line, process)
    local turns = min(floor(POLL * (ahead + 8) / 8), LONGEST_POLL)
    local wait = max(0, open - now) + turns
    set(waits, process, now + 2 * wait + SECOND)
    lasts(line, 2 * wait + SECOND)
    return says({ granted, wait })
end

if ARGV[1] == 'renew' then
    local waiting, hold = ARGV[3] == '1', ARGV[4] == '1'
    local over = {}
    for i = 5, #ARGV, 2 do
        local name = ARGV[i]
        local task = string.sub(name, 1, 1) == 't' and string.sub(name, 2)
        if task and score(ended, task) then
            over[#over + 1] = task
        else
            keep(name, tonumber(ARGV[i + 1]))
        end
    end
    if not waiting then
        leave_line(process)
    end
    if hold then
        open = max(open, now + HOLD)
    end
    return says({ over })
end

if ARGV[1] == 'bind' then
    redis.call('ZREM', slots, 'r' .. process .. '.' .. ARGV[3])
    if score(ended, ARGV[4]) then
        return says({ 0 })
    end
    keep('t' .. ARGV[4], tonumber(ARGV[5]))
    return says({ 1 })
end

local count = tonumber(ARGV[4])
for i = 5, 4 + count do
    redis.call('ZREM', slots, ARGV[i])
end
for i = 5 + count, #ARGV do
    redis.call('ZREM', slots, 't' .. ARGV[i])
    set(ended, ARGV[i], now + ENDED)
end
if ARGV[3] == '1' then
    leave_line(process)
    redis.call('ZREM', there, process)
end
return says({})
