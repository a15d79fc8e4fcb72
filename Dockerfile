# docs/image.md says how to build this, what is in it and what it needs.
# A release names the base by its digest: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The base has its library without bytecode, which each start would compile again: half of what a start takes.
RUN python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
      -x '/(ensurepip|idlelib|lib2to3|site-packages|tkinter|turtledemo)/' /usr/local/lib/python3.*
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
# The index is pip's own, or the secret's; nothing here names one, and no layer keeps it.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/app \
 && python -m pip install --require-hashes --only-binary :all: -r requirements-build.lock \
 && python -m pip --python /opt/app/bin/python install --no-compile --require-hashes --only-binary :all: \
      -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY sidecar ./sidecar
# Bytecode without times in it is the same in each build. The library's goes on by itself: the base has the rest.
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
 && python -m pip --python /opt/app/bin/python install --no-compile --no-index --no-deps /opt/wheel/*.whl \
 && /opt/app/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/app/lib \
 && mkdir /opt/bytecode \
 && find /usr/local/lib/python3.* -name site-packages -prune -o -name '*.pyc' -exec cp --parents -t /opt/bytecode {} +

# Of the base: the interpreter, the libraries that it and its modules load, and where a scanner finds their versions.
FROM build AS bare
WORKDIR /
RUN mkdir -p /opt/bare/var/lib/dpkg \
 && cp -a --parents -t /opt/bare etc/ld.so.cache usr/bin/env usr/local/bin/python usr/local/bin/python3 usr/local/bin/python3.*[0-9] \
      usr/local/lib/libpython* usr/local/lib/python3.*[0-9] \
 && find /opt/bare/usr/local/lib -mindepth 2 -maxdepth 2 -regextype egrep \
      -regex '.*/(config-.*|ensurepip|idlelib|lib2to3|site-packages|tkinter|turtledemo)' -exec rm -rf {} + \
 && find /opt/bare /opt/app -type f '(' -name env -o -name 'python3.*[0-9]' -o -name '*.so' -o -name '*.so.[0-9]*' ')' -exec ldd {} + >/tmp/loaded \
 && awk '$3 ~ "^(/usr)?/lib" && !seen[$3]++ {print $3} $1 ~ "^/lib.*/ld-" && !seen[$1]++ {print $1}' /tmp/loaded >/tmp/libraries \
 && xargs cp -L --parents -t /opt/bare </tmp/libraries \
 && sed 's/^/*/' /tmp/libraries >/tmp/patterns \
 && xargs dpkg-query --search </tmp/patterns >/tmp/owners \
 && awk -F : '!seen[$1]++ {print $1}' /tmp/owners >/tmp/packages \
 && xargs dpkg-query --status </tmp/packages >/opt/bare/var/lib/dpkg/status

# From here on both say the same. PID 1 loses what it does not handle yet, and Python wakes up for 50 ms and more: `env`
# blocks TERM and Ctrl-C within one, and `sidecar.signals` lets in what has waited.
FROM scratch AS minimal
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=bare /opt/bare /
COPY --from=build /opt/app /opt/app
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="entitlement-sidecar" \
      org.opencontainers.image.description="Answers from Stripe's active entitlements, beside your application" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/app/bin:/usr/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
USER 65532:65532
WORKDIR /
EXPOSE 7420 7421 7422
STOPSIGNAL SIGTERM
ENTRYPOINT ["env", "--block-signal=TERM,INT", "entitlement-sidecar"]
CMD ["serve"]

FROM ${PYTHON_IMAGE} AS runtime
COPY --from=build /opt/bytecode /
COPY --from=build /opt/app /opt/app
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="entitlement-sidecar" \
      org.opencontainers.image.description="Answers from Stripe's active entitlements, beside your application" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
USER 65532:65532
WORKDIR /
EXPOSE 7420 7421 7422
STOPSIGNAL SIGTERM
ENTRYPOINT ["env", "--block-signal=TERM,INT", "entitlement-sidecar"]
CMD ["serve"]
