/* The floor under one ADD or DEL: the system calls that no implementation can do without, and nothing else.
 *
 *   floor add NETNS MASTER STORE ADDRESS    floor del NETNS STORE ADDRESS
 *
 * add: parent's index, lock, one reservation file, macvlan "eth0" born in the namespace, its index, address/24, up,
 * default route by x.x.x.1. Standard input is read, since a runtime writes to it; nothing of it is used, nothing is
 * checked, nothing is undone. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

static char request[1024], reply[16384];
#define HEADER ((struct nlmsghdr *)request)

static void fail(const char *what) { perror(what); exit(1); }

static void *begin(int type, int flags, size_t size) {
    memset(request, 0, sizeof request);
    *HEADER = (struct nlmsghdr){NLMSG_LENGTH(size), type, NLM_F_REQUEST | flags, 1, 0};
    return NLMSG_DATA(HEADER);
}

static struct rtattr *put(int type, const void *data, int length) {
    struct rtattr *attribute = (void *)(request + NLMSG_ALIGN(HEADER->nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(length);
    if (length) memcpy(RTA_DATA(attribute), data, length);
    HEADER->nlmsg_len = NLMSG_ALIGN(HEADER->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static void end(struct rtattr *nest) { nest->rta_len = request + HEADER->nlmsg_len - (char *)nest; }

static struct nlmsghdr *exchange(int socket, const char *what) {
    if (send(socket, request, HEADER->nlmsg_len, 0) < 0 || recv(socket, reply, sizeof reply, 0) < 0) fail(what);
    struct nlmsghdr *answer = (void *)reply;
    if (answer->nlmsg_type == NLMSG_ERROR && *(int *)NLMSG_DATA(answer)) {
        fprintf(stderr, "%s: %s\n", what, strerror(-*(int *)NLMSG_DATA(answer)));
        exit(1);
    }
    return answer;
}

static int netlink(void) {
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    if (s < 0 || bind(s, (void *)&address, sizeof address)) fail("netlink");
    return s;
}

static int index_of(int socket, const char *name) {
    int skip_statistics = RTEXT_FILTER_SKIP_STATS;
    begin(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    put(IFLA_IFNAME, name, strlen(name) + 1);
    put(IFLA_EXT_MASK, &skip_statistics, 4);
    return ((struct ifinfomsg *)NLMSG_DATA(exchange(socket, name)))->ifi_index;
}

static int locked(const char *store) {
    char path[512];
    snprintf(path, sizeof path, "%s/lock", store);
    int lock = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0750);
    if (lock < 0 || flock(lock, LOCK_EX)) fail(path);
    return lock;
}

int main(int argc, char **argv) {
    int adding = argc == 6 && !strcmp(argv[1], "add");
    if (!adding && argc != 5) return 2;
    const char *store = argv[argc - 2], *text = argv[argc - 1];
    while (read(0, reply, sizeof reply) > 0) {}
    int outer = netlink(), namespace = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (namespace < 0) fail(argv[2]);
    char path[512];
    snprintf(path, sizeof path, "%s/%s", store, text);

    if (adding) {
        int parent = index_of(outer, argv[3]);
        int lock = locked(store);
        int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file < 0 || write(file, "c1\r\neth0", 8) != 8) fail(path);
        close(file);
        close(lock);

        int mode = MACVLAN_MODE_BRIDGE;
        begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
        put(IFLA_LINK, &parent, 4);
        put(IFLA_IFNAME, "eth0", 5);
        put(IFLA_NET_NS_FD, &namespace, 4);
        struct rtattr *info = put(IFLA_LINKINFO, 0, 0);
        put(IFLA_INFO_KIND, "macvlan", 7);
        struct rtattr *data = put(IFLA_INFO_DATA, 0, 0);
        put(IFLA_MACVLAN_MODE, &mode, 4);
        end(data);
        end(info);
        exchange(outer, "RTM_NEWLINK");
    }

    if (setns(namespace, CLONE_NEWNET)) fail("setns");
    int inner = netlink(), link = index_of(inner, "eth0");
    if (!adding) {
        ((struct ifinfomsg *)begin(RTM_DELLINK, NLM_F_ACK, sizeof(struct ifinfomsg)))->ifi_index = link;
        exchange(inner, "RTM_DELLINK");
        int lock = locked(store);
        if (unlink(path)) fail(path);
        close(lock);
        return 0;
    }
    struct in_addr ip, broadcast, gateway, any = {0};
    inet_pton(AF_INET, text, &ip);
    broadcast.s_addr = ip.s_addr | htonl(0xff);
    gateway.s_addr = (ip.s_addr & htonl(0xffffff00)) | htonl(1);
    struct ifaddrmsg *address = begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sizeof *address);
    *address = (struct ifaddrmsg){AF_INET, 24, 0, 0, link};
    put(IFA_LOCAL, &ip, 4);
    put(IFA_ADDRESS, &ip, 4);
    put(IFA_BROADCAST, &broadcast, 4);
    exchange(inner, "RTM_NEWADDR");
    *(struct ifinfomsg *)begin(RTM_NEWLINK, NLM_F_ACK, sizeof(struct ifinfomsg)) =
        (struct ifinfomsg){.ifi_index = link, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    exchange(inner, "up");
    *(struct rtmsg *)begin(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE, sizeof(struct rtmsg)) = (struct rtmsg){
        .rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
    put(RTA_DST, &any, 4);
    put(RTA_GATEWAY, &gateway, 4);
    put(RTA_OIF, &link, 4);
    exchange(inner, "RTM_NEWROUTE");
    printf("%s\n", text);
    return 0;
}
