# Rules that make root filesystems from image archives. Include them in a Makefile:
#
#     include flatten.mk
#     all: app.squashfs
#     app.ext4: FLATTEN_FLAGS += --size 2G
#     app.tar: ; docker save app:1 -o $@
#
#     make app.rootfs.tar      # app.tar is an image archive: docker save, OCI, ...
#     make app.ext4 app.qcow2 app.squashfs app.erofs app.cpio.gz
#     make app.rootfs.stamp    # the directory app.rootfs/
#
# A directory needs a stamp file, because its own mtime comes from the image. Each target
# depends on the archive only, and appears when it is complete, so an interrupted or failed
# make leaves none. .DELETE_ON_ERROR is for your own rules.

FLATTEN ?= flatten
FLATTEN_FLAGS ?=

.DELETE_ON_ERROR:

%.rootfs.tar: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.rootfs.tar.zst: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.ext4: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.qcow2: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.squashfs: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.erofs: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.cpio.gz: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) -o '$@' '$<'

%.rootfs.stamp: %.tar
	$(FLATTEN) $(FLATTEN_FLAGS) --force -o '$*.rootfs/' '$<'
	@touch '$@'
