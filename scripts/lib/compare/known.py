"""The differences that are wanted; docs/compatibility.md gives the reason for each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scripts.lib.compare.differences import Difference


@dataclass(frozen=True)
class Known:
    """A wanted difference: regular expressions that match the whole of a field.

    ``name`` is its heading in docs/compatibility.md.
    """

    name: str
    where: str = ".*"
    kind: str = ".*"
    part: str = ".*"
    case: str = ".*"
    chp: str = ".*"
    ours: str = ".*"

    def explains(self, difference: Difference) -> bool:
        """Whether this is the reason for a difference."""
        return all(
            re.fullmatch(getattr(self, field), getattr(difference, field), re.DOTALL)
            for field in ("where", "kind", "part", "case", "chp", "ours")
        )


OWN_PAGE = r"<!doctype html>\n<html lang=\"en\">.*"
REFUSED = r"HTTP/1\.1 (400|505) .*"
MALFORMED = r"malformed: (?!headers of 20 KB).*"

KNOWN = [
    # Header fields, wherever they are.
    Known("Header names keep their case", kind="header case"),
    Known("Order of header fields", kind="header order"),
    Known("Repeated header fields stay apart", kind="header value",
          case=r"(answer )?header: .*\|.*",
          part="accept|authorization|content-type|cookie|user-agent|x-twice|vary|www-authenticate"),
    # Hop by hop.
    Known("Hop-by-hop header fields stop here", kind="header missing", where="target",
          part="connection|keep-alive|proxy-connection|proxy-authorization|upgrade|x-named",
          case="(?!.*upgrade).*"),
    Known("Hop-by-hop header fields stop here", kind="header missing", where="client",
          part="proxy-authenticate|upgrade|x-named", case="answer.*"),
    Known("Hop-by-hop header fields stop here", kind="header value", where="client",
          part="connection", ours=r"\['(keep-alive|close)'\]",
          case="(answer )?header: Connection.*|upgrade: refused.*"),
    Known("Hop-by-hop header fields stop here", kind="header (missing|value)", where="target",
          part="te"),
    Known("Upgrades other than WebSocket are ignored", where="client|target",
          case=r"header: Connection: [uU]pgrade.*|upgrade: to something else"),
    Known("Upgrades other than WebSocket are ignored", case="upgrade: with POST"),
    # Framing and trailers.
    Known("Own answers have a length", kind="header added", where="client", part="content-length",
          case="(?!answer: (chunk|no length|trailers)).*"),
    Known("Own answers have a length", kind="header missing", where="client",
          part="transfer-encoding", case="(?!answer: (chunk|no length|trailers)).*"),
    Known("Framing is not invented", kind="header missing", where="target", part="content-length",
          chp=r"\['0'\]", case="(?!length 0|body with).*"),
    Known("Framing is not invented", where="client", kind="header (missing|added)",
          part="content-length|transfer-encoding", case=".*, empty|answer: 204 with a length"),
    Known("Bodies of DELETE and OPTIONS arrive", case="(smuggled in a )?chunked (body, )?"
          "(DELETE|OPTIONS)", where="target"),
    Known("Trailers of answers are passed on", kind="trailers|header added", part="trailer|"),
    Known("Trailers of answers are passed on", where="client",
          case="answer header: Trailer: X-After",
          chp="no answer"),
    Known("Interim answers are the target's", kind="interim answers"),
    Known("Unknown expectations are the target's", case="unknown expectation"),
    Known("Transfer-Encoding is spelt in small letters", case="Chunked in capitals",
          part="transfer-encoding"),
    # Request line.
    Known("The request target is forwarded byte for byte", where="target", kind="start line",
          case="target: .*"),
    Known("Bytes above 127 in the request target are forwarded",
          case=r"target: .*[^\\]\\x[0-9a-f]{2}.*"),
    Known("Escapes of any kind are routed", chp=r"HTTP/1\.1 500 .*", where="client",
          case=r"(target|error (path|target)): .*%(zz|ff|E9.*)?|error path: malformed path"),
    Known("Escapes of any kind are routed", where="client|target",
          case=r"(target|error (path|target)): .*%(zz|ff|E9.*)?|error path: malformed path",
          kind="body|header .*|number of messages"),
    Known("Escapes of any kind are routed", case="error target: /%", where="target",
          kind="start line", chp="GET /errors/500.*"),
    Known("A host before the path is not looked at", case=r"target: //(|a:b/t|\[/t)",
          where="client|target"),
    Known("OPTIONS of a host is OPTIONS *", case="host routing: OPTIONS of a host", where="target",
          kind="start line", ours=r"OPTIONS \* HTTP/1.1"),
    Known("Names that look like a trusted field to CGI are dropped", kind="header missing",
          where="target", case="header: X[_.]Forwarded.*", part="x[_.]forwarded[_.]for"),
    Known("An answer has at most 1000 header fields", case="answer: 1500 header fields"),
    Known("X-Forwarded-Port of an IPv6 host is its port", part="x-forwarded-port",
          case=r"host: '\[::1\].*"),
    Known("IPv4 clients have IPv4 addresses", part="x-forwarded-for", chp=".*::ffff:.*",
          where="target"),
    Known("Unknown methods are forwarded", case="method: (BREW|get|X)"),
    Known("CONNECT is 405", case="method: CONNECT"),
    Known("Only OPTIONS may ask for *", case=r"target: \*"),
    Known("A target's host must be that of Host", case="target: http://other.*"),
    Known("Header sections may be larger", case="malformed: headers of 20 KB"),
    Known("Status codes end at 599", case="answer: 999 .*", where="client"),
    Known("An empty Host stays empty", case="host: ''", part="host"),
    # Own answers.
    Known("Own error pages", where="client", kind="body", ours=OWN_PAGE, chp="<!doctype html>.*"),
    Known("No Keep-Alive on own answers", where="client", part="keep-alive"),
    Known("Names of JavaScript objects are ordinary paths", case="target: /toString"),
    # Malformed messages.
    Known("Malformed requests are 400", where="client", kind="start line", case=MALFORMED,
          ours=REFUSED),
    Known("Malformed requests are 400", where="client", kind="body|header .*|connection",
          case=MALFORMED),
    Known("Malformed requests are 400", where="target", kind="number of messages", case=MALFORMED,
          ours="nothing"),
    Known("Malformed requests are 400", where="client", case="target: t/relative|api: malformed",
          kind="body|header .*"),
    Known("What follows Connection: close is ignored", case="pipelined behind close"),
    Known("Malformed answers are 503", case="answer: (bad chunk|unasked 101)", where="client"),
    Known("Cut-off answers are cut off", kind="fate", ours="cut off in the body"),
    Known("Cut-off answers are cut off", kind="connection", case="answer: cut .*", ours="closed"),
    Known("A target may close its connection", where="client", part="connection|afterwards",
          case="answer header: Connection: close", ours=".*(keep|open).*"),
    Known("Reason phrases are not invented", case="answer: (no|empty) reason", kind="start line"),
    # Upgrades.
    Known("Refused upgrades have a page", case="upgrade: (without a route|to the dead|target "
          "closes)", where="client"),
    Known("Refused upgrades keep the connection", case="upgrade: refused.*", where="client",
          part="afterwards|date"),
    # HTTP/1.0.
    Known("HTTP/1.0 clients are told when the end is the close", where="client",
          case="HTTP/1.0 keep-alive, chunked answer", part="connection", ours=r"\['close'\]"),
    # Options.
    Known("--no-include-prefix cuts the prefix as it was sent", case="no prefix: .*",
          where="target", kind="start line", ours="GET /x HTTP/1.1"),
    Known("Locations of 303 are rewritten too", case=".*: status 303 See Other", part="location"),
    Known("--auto-rewrite replaces the port too", case="(auto|both) rewrites?: .*",
          part="location", ours=r"\['(https?:)?//proxy\.test(:81)?(/.*)?'\]"),
    Known("Rewritten locations keep their bytes", case="protocol rewrite: .*", part="location",
          ours=r"\['https://TARGET/.*'\]"),
    Known("Host names are compared in lower case", case="host routing: PROXY.*"),
    Known("Host names are compared in lower case", case=r"host routing: proxy\.test\./.*"),
    # REST API.
    Known("DELETE /api/routes answers", case="api: DELETE /api/routes", chp="no answer"),
    Known("Malformed escapes have an answer", case="api: .*%(zz|ff)?", chp="no answer"),
    Known("Malformed escapes have an answer", case="api: POST .*%(zz|ff)?", where="table",
          chp="absent"),
    Known("Foreign pages may not call an API without a token", where="client",
          case="no token: (foreign page|rebound name)"),
    Known("Foreign pages may not call an API without a token", where="table",
          case="no token: foreign page", ours="absent"),
    Known("Texts that quote input are no HTML", where="client", kind="header added",
          part="x-content-type-options", case="api: .*"),
    Known("Texts about bad JSON", case="api: .*", kind="body", chp="Body not valid JSON: .*",
          ours="Body not valid JSON: .*"),
    Known("Targets are validated", case="api: POST target .*", ours=".*(400|Invalid|absent|9.).*"),
    Known("Some fields of routes are options", case="api: POST option that is no option"),
    Known("A route begins with one slash", case="api: POST /api/routes//double//slash"),
    Known("Dates are ISO 8601", case=r"api: GET \?inactive_since=12"),
    Known("The token comes before the body", case="api: nonsense without the token",
          where="client", chp=".*400.*|Body not valid JSON: .*", ours="(.*403.*)?"),
    Known("Large integers stay exact", case="api: POST large number", where="table"),
]  # fmt: skip


def reason(difference: Difference) -> str | None:
    """Return the name of the known difference that explains one; None if it is a new one."""
    return next((known.name for known in KNOWN if known.explains(difference)), None)
