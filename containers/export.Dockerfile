# An image that exports checkpoints, with PyTorch and the ONNX tools, on the CPU. Needs the folder
# dist/ that `make dist` fills.
#   docker build -f containers/export.Dockerfile -t effdet-export .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" effdet-export --variant d0 d0.onnx
FROM python:3.13-slim

ARG VERSION=0.2.0

COPY constraints.txt dist/*.whl /tmp/dist/
# The wheel is installed by its path, so effdet-deploy itself does not come from a package index.
RUN pip install --no-cache-dir -c /tmp/dist/constraints.txt \
        "/tmp/dist/effdet_deploy-${VERSION}-py3-none-any.whl[export,eval,openvino,report]" \
    && rm -r /tmp/dist

# Published weights are kept in /cache; mount a volume there to keep them between runs.
ENV EFFDET_DEPLOY_CACHE=/cache HOME=/tmp
RUN useradd --uid 1000 --create-home effdet && install -d -m 1777 /cache /work
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["effdet-export"]
CMD ["--help"]
