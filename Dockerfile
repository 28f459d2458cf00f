# The environment of the lock, for servers and workers; the code comes by git (compose.yaml). It has
# never been built: there was no Docker engine where it was written.
FROM python:3.11.14-slim-bookworm AS cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --requirement /tmp/requirements.txt
RUN useradd --create-home --uid 1000 ostinato \
    && install --directory --owner=ostinato /ostinato
USER ostinato
WORKDIR /ostinato
RUN git config --global user.name ostinato && git config --global user.email ostinato@localhost

# With the CUDA libraries that the same TensorFlow asks for.
FROM cpu AS gpu
USER root
RUN pip install --no-cache-dir "tensorflow[and-cuda]==$(pip show tensorflow | sed -n 's/^Version: //p')"
USER ostinato
