"""How nginx is set up to compete."""

import os
import pwd

from tests.bench.questions import CHECK, LIST
from tests.bench.upstream import KEY


def configuration(port: int, path: str, stripe: int, constant: str) -> str:
    """Return a configuration in nginx's favour: one worker, no log, no limit on a connection's requests, files kept open.

    It answers Stripe's list out of its cache, and the one check with ``constant``.
    """
    # A worker of another user could not enter the temporary folder; without root, nginx stays the user it is.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    return f"""
        {user}
        daemon off;
        worker_processes 1;
        worker_rlimit_nofile 20000;
        pid nginx.pid;
        error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            keepalive_requests 1000000000;
            open_file_cache max=15000 inactive=1h;
            open_file_cache_valid 1h;
            client_body_temp_path client_body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            proxy_cache_path cache levels=1:2 keys_zone=entitlements:10m max_size=1g inactive=24h use_temp_path=off;
            upstream stripe {{
                server 127.0.0.1:{stripe};
                keepalive 8;
            }}
            server {{
                listen 127.0.0.1:{port};
                listen unix:{path};
                location = {LIST} {{
                    proxy_pass http://stripe;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Authorization "Bearer {KEY}";
                    proxy_cache entitlements;
                    proxy_cache_key $request_uri;
                    proxy_cache_valid 200 1h;
                    proxy_cache_lock on;
                    proxy_cache_background_update on;
                    proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504 http_429;
                    add_header X-Cache-Status $upstream_cache_status;
                }}
                location = {CHECK.paths[0]} {{
                    default_type application/json;
                    return 200 '{constant}';
                }}
            }}
        }}
    """
