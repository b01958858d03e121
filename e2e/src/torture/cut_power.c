/* Cuts the power of one mounted ext4: nothing more reaches its device, not even its journal. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define WITHOUT_LOG_FLUSH 2

int main(int count, char **arguments) {
    uint32_t how = WITHOUT_LOG_FLUSH;
    int fd = count == 2 ? open(arguments[1], O_RDONLY) : -1;
    if (fd < 0 || ioctl(fd, EXT4_IOC_SHUTDOWN, &how) != 0) {
        perror("cut_power");
        return 1;
    }
    return 0;
}
