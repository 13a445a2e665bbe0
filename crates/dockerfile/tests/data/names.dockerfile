FROM busybox AS a
ENV A=1 B="x y"
ARG Q=5 R
RUN --mount=type=cache,target=/c --mount=type=cache,id=zz,target=d,uid=5,mode=700,sharing=locked echo $A > /o
RUN --mount=type=tmpfs,target=/tt,size=1m --network=none true
RUN --mount=type=bind,from=busybox,source=/bin,target=/bb,rw ls /bb
USER 5:6
WORKDIR /w/x
RUN ["true"]
FROM busybox AS b
WORKDIR rel
SHELL ["/bin/sh", "-c"]
COPY --from=busybox --chown=root:5 /bin/sh /q/
COPY --from=busybox --chmod=640 --chown=1 /bin /bin/ls d/
RUN <<EOF
echo hi
EOF
COPY <<EOF <<X /doc/
a $Q
EOF
x
X
FROM scratch AS c
COPY --from=a /o /o
WORKDIR /
USER ghost
WORKDIR /deep/er
FROM b
ENV SSH_AUTH_SOCK=/s
RUN cat <<A <<B
a
A
b
B
COPY --from=c /o /x/./y/../z/.
RUN --mount=type=cache,target=/cc,from=a,source=/w,sharing=private,ro true
