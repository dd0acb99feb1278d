-- Every request asks for something else, as a page does: what a proxy keeps of a request it has seen helps less then.
-- With "strangers" its cookie is another one too, as if it came from another client.
local number = 0
local strangers = false

function init(arguments)
  strangers = arguments[1] == "strangers"
end

function request()
  number = number + 1
  if strangers then
    wrk.headers["Cookie"] = string.format("theme=dark; session=%032d", number)
  end
  return wrk.format(nil, wrk.path .. "?rand=" .. number)
end
