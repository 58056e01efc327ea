// A small HDFS for the tests: one process with one or two NameNodes and some DataNodes.
//
//   java -cp 'FOLDER/*' MiniHdfs.java --folder DIR [--datanodes N] [--ha] [--conf FILE]
//       [--host NAME]
//
// FILE is a configuration of Hadoop that is added to its own, NAME how the DataNodes are called.
// Prints `namenode INDEX PORT` for each NameNode, then `ready`. Then each line of standard input is
// a command, answered by `done`, or by `failed` and the reason: see `execute`. It ends with its
// standard input.

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.stream.Collectors;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.datanode.metrics.DataNodeMetrics;
import org.apache.hadoop.metrics2.lib.MutableCounterLong;
import org.apache.hadoop.fs.SafeModeAction;

public final class MiniHdfs
{
    private final MiniDFSCluster cluster;
    private final List<MiniDFSCluster.DataNodeProperties> stopped = new ArrayList<>();

    private MiniHdfs(MiniDFSCluster cluster)
    {
        this.cluster = cluster;
    }

    public static void main(String[] args)
            throws Exception
    {
        File folder = null;
        int dataNodes = 1;
        boolean highlyAvailable = false;
        Path more = null;
        String host = null;
        for (int i = 0; i < args.length; i++) {
            switch (args[i]) {
                case "--folder" -> folder = new File(args[++i]);
                case "--datanodes" -> dataNodes = Integer.parseInt(args[++i]);
                case "--ha" -> highlyAvailable = true;
                case "--host" -> host = args[++i];
                case "--conf" -> more = new Path(args[++i]);
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        MiniDFSNNTopology topology = highlyAvailable
                ? MiniDFSNNTopology.simpleHATopology()
                : MiniDFSNNTopology.simpleSingleNN(0, 0);
        Configuration conf = configuration(dataNodes);
        if (more != null) {
            conf.addResource(more);
        }
        MiniDFSCluster.Builder builder = new MiniDFSCluster.Builder(conf, folder)
                .nnTopology(topology)
                .numDataNodes(dataNodes);
        if (host != null) {
            builder.hosts(Collections.nCopies(dataNodes, host).toArray(String[]::new));
        }
        MiniDFSCluster cluster = builder.build();
        if (highlyAvailable) {
            cluster.transitionToActive(0);
        }
        cluster.waitActive();
        for (int i = 0; i < cluster.getNumNameNodes(); i++) {
            System.out.println("namenode " + i + " " + cluster.getNameNodePort(i));
        }
        System.out.println("ready");
        new MiniHdfs(cluster).serve();
        cluster.shutdown();
        System.exit(0);
    }

    private static Configuration configuration(int dataNodes)
    {
        Configuration conf = new Configuration();
        conf.setInt("dfs.replication", Math.min(dataNodes, 2));
        // A DataNode that was killed is known to be dead after some 5 seconds, not 10 minutes.
        conf.setInt("dfs.heartbeat.interval", 1);
        conf.setInt("dfs.namenode.heartbeat.recheck-interval", 1500);
        // What a killed writer held is free after a second, not a minute.
        conf.setInt("dfs.namenode.lease-recheck-interval-ms", 500);
        conf.setBoolean("dfs.permissions.enabled", true);
        return conf;
    }

    private void serve()
            throws Exception
    {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            try {
                execute(line.trim().split(" "));
                System.out.println("done");
            }
            catch (Exception e) {
                System.out.println("failed " + e);
            }
        }
    }

    private void execute(String[] command)
            throws Exception
    {
        switch (command[0]) {
            // The first DataNode that runs.
            case "stop-datanode" -> stopped.add(cluster.stopDataNode(0));
            case "start-datanode" -> {
                cluster.restartDataNode(stopped.removeFirst(), true);
                cluster.waitActive();
            }
            case "restart-namenode" -> cluster.restartNameNode(Integer.parseInt(command[1]), true);
            case "stop-namenode" -> cluster.shutdownNameNode(Integer.parseInt(command[1]));
            case "start-namenode" -> cluster.restartNameNode(Integer.parseInt(command[1]), false);
            case "activate" -> cluster.transitionToActive(Integer.parseInt(command[1]));
            case "deactivate" -> cluster.transitionToStandby(Integer.parseInt(command[1]));
            case "enter-safe-mode" -> fileSystem().setSafeMode(SafeModeAction.ENTER);
            case "leave-safe-mode" -> fileSystem().setSafeMode(SafeModeAction.LEAVE);
            // Its last argument is the soft limit of leases in milliseconds.
            case "lease-limit" -> cluster.setLeasePeriod(
                    Long.parseLong(command[1]), 20 * 60 * 1000);
            case "chmod" -> fileSystem().setPermission(
                    new Path(command[2]), new FsPermission(command[1]));
            case "chown" -> fileSystem().setOwner(new Path(command[2]), command[1], null);
            case "space-quota" -> fileSystem().setQuota(
                    new Path(command[2]), Long.MAX_VALUE - 1, Long.parseLong(command[1]));
            // How often the DataNodes have synced what they wrote.
            case "syncs" -> System.out.println(syncs());
            // Where the DataNodes take and give content.
            case "ports" -> System.out.println(cluster.getDataNodes().stream()
                    .map(dataNode -> String.valueOf(dataNode.getXferPort()))
                    .collect(Collectors.joining(" ")));
            case "mkdir" -> fileSystem().mkdirs(new Path(command[1]));
            default -> throw new IllegalArgumentException("unknown command");
        }
    }

    // Read from the counters themselves: what JMX shows of them is up to 10 seconds old.
    private long syncs()
            throws Exception
    {
        Field counter = DataNodeMetrics.class.getDeclaredField("fsyncCount");
        counter.setAccessible(true);
        long sum = 0;
        for (DataNode dataNode : cluster.getDataNodes()) {
            sum += ((MutableCounterLong) counter.get(dataNode.getMetrics())).value();
        }
        return sum;
    }

    private DistributedFileSystem fileSystem()
            throws Exception
    {
        return cluster.getFileSystem();
    }
}
