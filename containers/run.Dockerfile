# An image that runs exported files, with numpy, Pillow, ONNX Runtime and OpenVINO, without PyTorch.
# Needs the folder dist/ that `make dist` fills.
#   docker build -f containers/run.Dockerfile -t effdet-deploy .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" effdet-deploy detect d0.onnx photo.jpg --output found
FROM python:3.13-slim

ARG VERSION=0.2.0

COPY constraints.txt dist/*.whl /tmp/dist/
# The wheel is installed by its path, so effdet-deploy itself does not come from a package index.
RUN pip install --no-cache-dir -c /tmp/dist/constraints.txt \
        "/tmp/dist/effdet_deploy-${VERSION}-py3-none-any.whl[openvino]" \
    && rm -r /tmp/dist

ENV EFFDET_DEPLOY_CACHE=/cache HOME=/tmp
RUN useradd --uid 1000 --create-home effdet && install -d -m 1777 /cache /work
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["effdet-deploy"]
CMD ["--help"]
