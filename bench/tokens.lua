-- One token after another: wrk -s tokens.lua URL -- FILE FIRST
-- FILE has a token on each line; FIRST is the number of lines to begin behind. All
-- requests are made beforehand, so that wrk only has to take the next one.

local requests, at = {}, 0

function init(args)
  for token in io.lines(args[1]) do
    wrk.headers["Authorization"] = "Bearer " .. token
    requests[#requests + 1] = wrk.format()
  end
  at = tonumber(args[2]) % #requests
end

function request()
  at = at % #requests + 1
  return requests[at]
end
