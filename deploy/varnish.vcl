# Varnish 7 as an edge, or in place of a CDN in tests: docs/operations/edge.md. Start it with
#
#   varnishd -f /srv/realms/server/deploy/varnish.vcl -a :6081
#       -p http_gzip_support=off -p http_range_support=off
#
# Replicas compress and answer ranges themselves.
#
# Varnish caches an answer for the time that the replica states (REALM_EDGE_SECONDS). It purges the keys that
# `manage.py listen_file_changes --purge-edge` sends. It has no TLS: the proxy that terminates TLS before it must
# set Host, X-Forwarded-For and X-Forwarded-Proto, and nothing else may reach Varnish.
vcl 4.1;

import std;

# nginx with deploy/nginx.conf, or one replica.
backend default {
    .host = "127.0.0.1";
    .port = "8000";
}

# The addresses from which the purger may send bans.
acl purgers {
    "localhost";
}

sub vcl_recv {
    if (req.method == "BAN") {
        # A TLS proxy on the same host has a local address, too, but sets X-Forwarded-Proto.
        if (client.ip !~ purgers || req.http.X-Forwarded-Proto) {
            return (synth(403, "Not a purger"));
        }
        if (req.http.Surrogate-Key !~ "^[a-z0-9-]+( [a-z0-9-]+)*$") {
            return (synth(400, "Not a list of surrogate keys"));
        }
        if (!std.ban("obj.http.Surrogate-Key ~ (^|\s)(" + regsuball(req.http.Surrogate-Key, " ", "|") + ")(\s|$)")) {
            return (synth(500, "Not banned"));
        }
        return (synth(200, "Banned"));
    }
    # Only plain reads are answered from the cache, as in deploy/nginx.conf.
    if ((req.method != "GET" && req.method != "HEAD")
        || req.url ~ "\?" || req.url ~ "^/_"
        || req.http.Authorization || req.http.Cookie || req.http.Range || req.http.If-Range
        || req.http.If-Match || req.http.If-Unmodified-Since || req.http.X-Realm-Pin
        || req.http.X-Realm-Min-Generation || req.http.X-HTTP-Method-Override
        || req.http.X-Boxel-Assume-User || req.http.Content-Type || req.http.Content-Length
        || req.http.Transfer-Encoding || req.http.Upgrade || req.http.Expect) {
        return (pass);
    }
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    hash_data(req.http.Host);
    # The replicas' Vary doesn't name the scheme, but the scheme is a part of the realm's URL.
    hash_data(req.http.X-Forwarded-Proto);
    hash_data(req.http.Accept);
    hash_data(req.http.Accept-Encoding);
    return (lookup);
}

sub vcl_backend_fetch {
    # The time of the request, from which the age of the answer is counted.
    set bereq.http.X-Asked-At = std.time2real(now, 0.0);
}

sub vcl_backend_response {
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    if (bereq.uncacheable || beresp.http.Set-Cookie
        || beresp.http.Cache-Control !~ "(^|[ ,])s-maxage=[1-9]") {
        set beresp.uncacheable = true;
        set beresp.ttl = 1s;
        return (deliver);
    }
    set beresp.ttl = beresp.ttl - std.duration(
        real=std.time2real(now, 0.0) - std.real(bereq.http.X-Asked-At, 0.0));
    if (beresp.ttl <= 0s) {
        set beresp.uncacheable = true;
        set beresp.ttl = 1s;
    }
    return (deliver);
}

sub vcl_synth {
    if (req.method == "BAN" && resp.status == 200) {
        # The purger reads from this header that the ban was done.
        set resp.http.X-Purged = req.http.X-Purge-Number;
    }
    set resp.http.Cache-Control = "no-store";
    return (deliver);
}
