# The server in a container, for one processor or more, without a GPU. Written with care and not yet built anywhere:
# where it was written there is no Docker. See docs/serve.md, "In a container and as a service".
#
#   docker build -t trimtab --build-arg TORCH_INDEX=ADDRESS .
#   docker run -d --name trimtab -p 127.0.0.1:8000:8000 -e TRIMTAB_API_KEY -v trimtab-cache:/cache -v trimtab-recipes:/recipes \
#     --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --stop-timeout 40 trimtab
#
# TORCH_INDEX is the index of CPU builds that pytorch.org names for pip on Linux; without it pip may bring the CUDA
# build, which works and is 2 to 3 GB larger.

FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
ENV PATH=/opt/trimtab/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/trimtab
COPY requirements.lock requirements-dev.lock ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.lock)"
RUN pip install -r requirements.lock \
 && grep -E '^(fastapi|starlette|uvicorn|prometheus_client)==' requirements-dev.lock > serve.txt \
 && pip install -r serve.txt -c requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-deps --no-build-isolation .

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --home-dir /cache --shell /usr/sbin/nologin trimtab \
 && install -d -o trimtab -g trimtab /cache /recipes
COPY --from=build /opt/trimtab /opt/trimtab
ENV PATH=/opt/trimtab/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TRIMTAB_CACHE=/cache XDG_CACHE_HOME=/cache MPLCONFIGDIR=/tmp
USER 10001
WORKDIR /recipes
# The converted model (1.1 GB, made at the first start), and saved recipes.
VOLUME ["/cache", "/recipes"]
EXPOSE 8000
# The first start converts the model, which takes some 20 seconds on two cores.
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Any host but loopback demands a key of 16 characters or more in TRIMTAB_API_KEY; without it the server does not start.
CMD ["trimtab", "serve", "--host", "0.0.0.0", "--port", "8000", "--recipes", "/recipes"]
